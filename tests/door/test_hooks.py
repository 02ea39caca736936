"""The hook's program and a door, with containers that wait for it as a runtime has them wait: namespaces made, and no
instruction of the application done."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from proxy.cdi.build import FLAGS, SOURCE
from proxy.cdi.messages import SOCKET
from proxy.demo import netns
from tests.door.engines import FakeEngine
from tests.door.house import running
from tests.pump.rig import until
from tests.tools.compiled import CONNECT_FIRST, compiled

pytestmark = pytest.mark.netns

LABELS = {"hostlane.use": "redis@127.77.0.2:6379"}
BOTH = {**LABELS, "hostlane.offer": "web=tcp:127.0.0.1:80"}
Logs = list[MutableMapping[str, Any]]


@pytest.fixture(autouse=True)
def logs() -> Iterator[Logs]:
    with capture_logs() as entries:
        yield entries


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The hook, and the application that connects first thing."""
    folder = tmp_path_factory.mktemp("programs")
    first = compiled(CONNECT_FIRST, folder / "connectfirst", "-static")
    return compiled(SOURCE, folder / "hostlane-hook", *FLAGS), first


def held() -> list[str]:
    """This process's descriptors of namespaces, processes and listeners inside containers."""
    found = []
    for each in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{each}"))
    return sorted(each for each in found if each.startswith(("net:", "anon_inode:[pidfd]")))


class Starting:
    """A container whose application waits for `go`: in a namespace of its own, whose loopback is down yet, as that of a
    runtime may be.

    Args:
        argv: the application; with ``$0``, the rest of a shell's line before it.
    """

    def __init__(self, id: str, argv: list[str], hook: Path, folder: Path) -> None:
        self.id, self.program, self._socket = id, hook, f"{folder}/cdi/{SOCKET}"
        line = 'echo there; read go; ip link set lo up; exec "$@"'
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(["unshare", "--net", "sh", "-c", line, "sh", *argv], **pipes)  # type: ignore[call-overload]
        assert self.process.stdout.readline() == b"there\n"

    async def hook(self, *strict: str) -> subprocess.CompletedProcess[bytes]:
        """What a runtime calls before the start."""
        return await self.call("start", "20", *strict)

    async def stopped(self, *before: str) -> subprocess.CompletedProcess[bytes]:
        """And after the end; by another command's hand, if there is one."""
        return await self.call("stop", "20", before=before)

    async def call(self, what: str, *words: str, before: Sequence[str] = ()) -> subprocess.CompletedProcess[bytes]:
        """Call the hook."""
        state = json.dumps({"ociVersion": "1.0.2", "id": self.id, "pid": self.process.pid}).encode()
        argv = [*before, str(self.program), what, self._socket, *words]
        return await trio.run_process(argv, stdin=state, capture_stdout=True, capture_stderr=True, check=False)

    async def go(self) -> str:
        """What the application says of its connecting."""
        self.process.stdin.write(b"go\n")
        self.process.stdin.flush()
        return str((await trio.to_thread.run_sync(self.process.stdout.readline)).decode().strip())

    def __enter__(self) -> Starting:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


Start = Callable[[str], Starting]


@pytest.fixture
def start(programs: tuple[Path, Path], tmp_path: Path) -> Start:
    hook, first = programs
    return lambda id: Starting(id, [str(first), "127.77.0.2", "6379", "stay"], hook, tmp_path)


def put(engine: FakeEngine, id: str, labels: dict[str, str] = LABELS) -> None:
    """It is created; the file of its namespace the engine makes later."""
    engine.put(id, "later", labels, Running=False)


async def test_the_listener_is_there_before_the_first_instruction(tmp_path: Path, start: Start) -> None:
    """A hundred starts, none refused; the loopback is up after the listener is there."""
    said = []
    with FakeEngine(tmp_path / "engine.sock") as engine:
        async with running(tmp_path) as door:
            for number in range(100):
                put(engine, f"c{number}")
                with start(f"c{number}") as container:
                    done = await container.hook("strict")
                    assert (done.returncode, done.stderr) == (0, b"")
                    said.append(await container.go())
            await until(lambda: not held(), "the descriptors")
            assert list(door._rooms) == []
    assert said == ["connected"] * 100


async def test_an_engine_that_answers_for_it_when_it_has_started(tmp_path: Path, start: Start) -> None:
    """Real ones do: who waits for that while the start waits for the hook waits for himself."""
    with FakeEngine(tmp_path / "engine.sock") as engine:
        async with running(tmp_path):
            await until(lambda: engine.followers, "the events")
            put(engine, "a")
            engine.hold()
            engine.happen("create", "a")
            await until(lambda: "/containers/a/json" in engine.asked, "the inspection")
            with start("a") as container:
                assert (await container.hook("strict")).returncode == 0
                assert await container.go() == "connected"
                engine.release()


async def test_the_same_without_it_is_refused(tmp_path: Path, start: Start) -> None:
    with FakeEngine(tmp_path / "engine.sock") as engine:
        async with running(tmp_path):
            put(engine, "a")
            with start("a") as container:
                assert await container.go() == "ECONNREFUSED"


async def test_its_end_is_seen_without_a_word(tmp_path: Path, start: Start, logs: Logs) -> None:
    """A runtime that was killed calls no hook, an engine that was killed tells nobody."""
    with FakeEngine(tmp_path / "engine.sock") as engine:
        async with running(tmp_path):
            put(engine, "a")
            with start("a") as container:
                await container.hook("strict")
                assert await container.go() == "connected"
                assert len(held()) == 2
            await until(lambda: not held(), "its end")
    assert [entry["container"] for entry in logs if entry["event"] == "container ended"] == ["a-name"]


async def test_restarts_and_what_is_told_late(tmp_path: Path, start: Start) -> None:
    """The end of the life before, told when the next one has begun, ends nothing."""
    with FakeEngine(tmp_path / "engine.sock") as engine:
        async with running(tmp_path) as door:
            put(engine, "a")
            with start("a") as first:
                await first.hook("strict")
                assert await first.go() == "connected"
            assert (await first.stopped()).returncode == 0
            with start("a") as second:
                await second.hook("strict")
                seen = len(engine.asked)
                engine.happen("die", "a")
                await until(lambda: len(engine.asked) > seen, "the event")
                assert (await first.stopped()).returncode == 0
                assert await second.go() == "connected"
                [room] = door._rooms
                assert room.listeners


async def test_the_end_is_told(tmp_path: Path, start: Start) -> None:
    """When poststop returns, nothing of the namespace is open: something may attach again."""
    with FakeEngine(tmp_path / "engine.sock") as engine:
        async with running(tmp_path) as door:
            put(engine, "a")
            with start("a") as container:
                await container.hook("strict")
            assert (await container.stopped()).returncode == 0
            assert list(door._rooms) == []
            await until(lambda: not held(), "the hook's connection")


async def test_offers_come_when_it_runs(tmp_path: Path, start: Start, namespace: Callable[[], str]) -> None:
    with FakeEngine(tmp_path / "engine.sock") as engine:
        async with running(tmp_path) as door:
            put(engine, "a", BOTH)
            with start("a") as container:
                await container.hook("strict")
                [room] = door._rooms
                assert (len(room.listeners), room.offers) == (1, {})
                listeners = dict(room.listeners)
                await container.go()
                engine.put("a", namespace(), BOTH)
                engine.happen("start", "a")
                await until(lambda: room.offers, "the offer")
                assert room.listeners == listeners, "they are those that the hook has waited for"


@pytest.mark.parametrize("strict", [[], ["strict"]])
async def test_what_cannot_be(tmp_path: Path, start: Start, strict: list[str]) -> None:
    async def refusal(id: str) -> str:
        with start(id) as container:
            done = await container.hook(*strict)
            assert done.returncode == len(strict)
            line = done.stderr.decode().removeprefix(f"hostlane-hook: container {id}: ")
            return line.partition("; it is not")[0].strip()

    with FakeEngine(tmp_path / "engine.sock") as engine:
        async with running(tmp_path) as door:
            put(engine, "wrong", {"hostlane.use": "redis"})
            assert (await refusal("wrong")).startswith("hostlane.use: found \"redis\"; allowed: SERVICE@127.x.y.z:PORT")
            put(engine, "shared")
            engine.containers["shared"]["HostConfig"]["NetworkMode"] = "container:x"
            assert await refusal("shared") == "its network is another container's; put its labels there"
            assert await refusal("nobody") == "the door's engine (door.engine) has no such container"
            assert list(door._rooms) == []
    async with running(tmp_path):
        assert (await refusal("a")).startswith("the engine does not answer the door (")
    with start("a") as container:
        # A strict container waits for a door; this one has been here, and its limit is the test's.
        done = await container.call("start", "1", *strict)
        assert done.returncode == len(strict)
        assert b"the door is away" in done.stderr


async def test_containers_that_ask_for_nothing(tmp_path: Path, start: Start) -> None:
    with FakeEngine(tmp_path / "engine.sock") as engine:
        async with running(tmp_path) as door:
            for id, labels in (("plain", {"other": "1"}), ("caller", {"hostlane.caller": "me"})):
                put(engine, id, labels)
                with start(id) as container:
                    assert (await container.hook("strict")).returncode == 0
                    assert list(door._rooms) == []
                    await until(lambda: not held(), "no descriptor keeps its namespace")


async def test_a_container_that_ends_before_it_has_begun(tmp_path: Path, start: Start) -> None:
    with FakeEngine(tmp_path / "engine.sock") as engine:
        async with running(tmp_path) as door:
            put(engine, "a")
            with start("a") as container, trio.move_on_after(0):
                await container.hook()
            await until(lambda: not held() and not list(door._rooms), "nothing is left")


async def test_another_door_finds_it_where_the_engine_has_it(
    tmp_path: Path, start: Start, namespace: Callable[[], str]
) -> None:
    """Its descriptors are gone with the door before."""
    one = namespace()
    with FakeEngine(tmp_path / "engine.sock") as engine:
        async with running(tmp_path):
            put(engine, "a")
            with start("a") as container:
                await container.hook("strict")
        engine.put("a", one, LABELS)
        async with running(tmp_path):
            def listens() -> bool:
                with netns.make_socket(one) as caller:
                    return caller.connect_ex(("127.77.0.2", 6379)) == 0

            await until(listens, "the listener")


@pytest.mark.parametrize("said", [b"?", b'{"type":"starting","id":"a"}', b'{"type":"later"}'])
async def test_who_says_something_else(tmp_path: Path, said: bytes, logs: Logs) -> None:
    with FakeEngine(tmp_path / "engine.sock"):
        async with running(tmp_path):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
                caller.connect(f"{tmp_path}/cdi/{SOCKET}")
                caller.send(said)
                caller.settimeout(20)
                assert await trio.to_thread.run_sync(caller.recv, 99) == b""
    assert [entry["event"] for entry in logs if "hook" in entry["event"]] == ["a hook was not answered"]


async def test_only_root_may(tmp_path: Path, start: Start, logs: Logs) -> None:
    with FakeEngine(tmp_path / "engine.sock") as engine:
        async with running(tmp_path):
            (tmp_path / "cdi").chmod(0o755)
            (tmp_path / "cdi" / SOCKET).chmod(0o666)
            put(engine, "a")
            container = start("a")
            with container:
                for folder in (container.program, *container.program.parents, tmp_path, *tmp_path.parents):
                    folder.chmod(folder.stat().st_mode | 0o011)  # pytest's own are closed to others
                done = await container.stopped("setpriv", "--reuid=65534", "--clear-groups")
                assert done.returncode == 0
    assert {"uid": 65534, "allowed": "root"}.items() <= next(e for e in logs if e["event"] == "not a hook").items()

