from __future__ import annotations

from pathlib import Path

import pytest
import trio.testing

from proxy.door.presence import PATIENCE, Presence, hold, is_held
from proxy.errors import StartError


def test_who_looks_takes_nothing(tmp_path: Path) -> None:
    assert not is_held(str(tmp_path))
    with hold(str(tmp_path)):
        assert is_held(str(tmp_path))
        with pytest.raises(StartError, match="another attach service runs on this host"), hold(str(tmp_path)):
            pass
        assert is_held(str(tmp_path))
    assert not is_held(str(tmp_path))
    with hold(str(tmp_path)):
        assert is_held(str(tmp_path))


def test_a_directory_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"door\.directory .*No such file or directory"), hold(f"{tmp_path}/none"):
        pass


async def test_it_is_said_after_a_while(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    presence = Presence(str(tmp_path))
    assert (presence.look(), presence.problems(["web"])) == (False, [])
    await trio.sleep(PATIENCE)
    assert presence.look()
    line = "container web: hostlane.attach: nobody attaches on this host; run hostlane attach-service"
    assert presence.problems(["web"]) == [line]
    assert not presence.look()
    with hold(str(tmp_path)):
        assert (presence.look(), presence.problems(["web"])) == (True, [])
