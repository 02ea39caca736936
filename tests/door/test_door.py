from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from proxy.config.schema import DoorConfig
from proxy.demo import netns
from proxy.door import door as doors
from proxy.door.door import Door, account, make_directory
from proxy.errors import StartError
from tests.door.engines import FakeEngine
from tests.door.house import config, running
from tests.pump.rig import until
from tests.tools.sockets import fds_since, open_fds

LABELS = {"hostlane.use": "redis@127.77.0.2:6379"}
Logs = list[MutableMapping[str, Any]]


@pytest.fixture(autouse=True)
def logs() -> Iterator[Logs]:
    with capture_logs() as entries:
        yield entries


def listens(name: str) -> bool:
    with netns.make_socket(name) as caller:
        return caller.connect_ex(("127.77.0.2", 6379)) == 0


@pytest.mark.netns
async def test_containers_of_before_and_after(tmp_path: Path, namespace: Callable[[], str]) -> None:
    one, two = namespace(), namespace()
    before = open_fds()
    with FakeEngine(tmp_path / "engine.sock") as engine:
        engine.put("a", one, LABELS)
        async with running(tmp_path):
            await until(lambda: listens(one), "the one that was there")
            engine.put("b", two, LABELS)
            engine.happen("start", "b")
            await until(lambda: listens(two), "the one that has started")
            engine.containers["b"]["State"]["Running"] = False
            engine.happen("die", "b")
            await until(lambda: not listens(two), "its end")
            assert listens(one)
        assert not listens(one)
    await until(lambda: not fds_since(before), "the descriptors")


@pytest.mark.netns
async def test_what_the_engine_does_not_tell(
    tmp_path: Path, namespace: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its buffer for events is 256, and nobody hears of those that do not fit."""
    monkeypatch.setattr(doors, "RECONCILE", 0.05)
    one = namespace()
    with FakeEngine(tmp_path / "engine.sock") as engine:
        async with running(tmp_path):
            engine.put("a", one, LABELS)
            await until(lambda: listens(one), "the one that nobody has told of")
            del engine.containers["a"]
            await until(lambda: not listens(one), "its end")


@pytest.mark.netns
async def test_the_engine_is_away(tmp_path: Path, namespace: Callable[[], str], logs: Logs) -> None:
    one, two = namespace(), namespace()
    async with running(tmp_path):
        for name in (one, two):
            with FakeEngine(tmp_path / "engine.sock") as engine:
                engine.put("a", name, LABELS)
                await until(lambda name=name: listens(name), "what there is")
            assert listens(name), "what is open stays open"
    away = [entry["event"] for entry in logs if entry["log_level"] == "warning"]
    assert away[0] == "the engine does not answer; what is open stays open"
    assert len([entry for entry in logs if entry["event"] == "following the engine"]) == 2


@pytest.mark.netns
async def test_a_namespace_that_goes_while_the_engine_is_away(
    tmp_path: Path, namespace: Callable[[], str], monkeypatch: pytest.MonkeyPatch, logs: Logs
) -> None:
    """An engine that stops ends its containers, and tells nobody."""
    monkeypatch.setattr(doors, "LOOK", 0.01)
    one = namespace()
    async with running(tmp_path):
        with FakeEngine(tmp_path / "engine.sock") as engine:
            engine.put("a", one, LABELS)
            await until(lambda: listens(one), "what there is")
        netns.delete(one)
        await until(lambda: [entry for entry in logs if entry["event"] == "container ended"], "its end")


@pytest.mark.netns
async def test_what_is_wrong_is_said_once(tmp_path: Path, namespace: Callable[[], str], logs: Logs) -> None:
    with FakeEngine(tmp_path / "engine.sock") as engine:
        engine.put("a", namespace(), {**LABELS, "hostlane.sue": "1"})
        async with running(tmp_path):
            for _ in range(3):
                seen = len(engine.asked)
                engine.happen("health_status: healthy", "a")
                await until(lambda seen=seen: len(engine.asked) > seen, "another look")
            await trio.testing.wait_all_tasks_blocked(0.05)
    [entry] = [entry for entry in logs if entry["log_level"] == "error"]
    assert entry["error"].startswith("container a-name: hostlane.sue: unknown; allowed: ")


def test_the_directory_is_for_the_proxy_alone(tmp_path: Path) -> None:
    made = config(tmp_path)
    for _ in range(2):
        make_directory(made)
        found = os.stat(made.directory)
        assert stat.S_IMODE(found.st_mode) == 0o750
        assert found.st_gid == pwd.getpwuid(os.geteuid()).pw_gid
        os.chmod(made.directory, 0o777)


def test_a_directory_that_cannot_be_had(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match=r"door\.directory .*/file/door: .*/file is not a directory"):
        make_directory(DoorConfig(directory=f"{tmp_path}/file/door"))


@pytest.mark.nobody
def test_a_directory_of_somebody_else(tmp_path: Path) -> None:
    made = config(tmp_path)
    os.mkdir(made.directory)
    os.chown(made.directory, 65534, 0)
    with pytest.raises(StartError, match="it belongs to user 65534; allowed: user 0"):
        make_directory(made)


def test_users() -> None:
    assert account(7600) == (7600, 7600)
    assert account("root") == account(0) == (0, 0)
    with pytest.raises(StartError, match="door.user: there is no user 'nosuch' here"):
        account("nosuch")


async def test_a_second_door_is_one_line(tmp_path: Path) -> None:
    async with running(tmp_path):
        with pytest.raises(StartError, match="cannot listen on unix:"):
            await Door(config(tmp_path)).run()


async def test_an_old_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> int:
        raise OSError(92, "Protocol not available")

    monkeypatch.setattr(doors.namespaces, "own_cookie", absent)
    with pytest.raises(StartError, match="Linux 5.14"):
        await Door(config(tmp_path)).run()
