from __future__ import annotations

import pytest

from control.base.grid import grid
from control.cli import live

TABLE = grid(["a", "b>"], [("x" * 300, "1")])


class Gone(Exception):
    pass


def test_without_a_terminal_frames_follow_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with live.screen() as screen:
        screen.show([TABLE])
        screen.show([TABLE])
        raise KeyboardInterrupt
    assert capsys.readouterr().out.count("x" * 300) == 2


def test_looking_again_and_again(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "INTERVAL", 0.0)
    left = iter([0, Gone("it is away"), Gone("it is away"), 1, Gone("again"), 2])

    def look() -> tuple[int, bytes]:
        found = next(left, None)
        if found is None:
            raise KeyboardInterrupt
        if isinstance(found, Gone):
            raise found
        return found, b"%d" % found

    live.watch(look, True, lambda number: [TABLE], Gone)
    said = capsys.readouterr()
    assert said.out == "0\n1\n2\n"
    assert said.err == "hostlane: it is away; waiting for it\nhostlane: again; waiting for it\n"


def test_nobody_to_begin_with() -> None:
    def look() -> tuple[int, bytes]:
        raise Gone

    with pytest.raises(Gone):
        live.watch(look, False, lambda number: [TABLE], Gone)
