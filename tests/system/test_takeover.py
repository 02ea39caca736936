"""A proxy whose place another process takes, under load: no connection attempt fails, no stream is cut."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.demo.lab import Lab
from proxy.demo.mesh import HOSTLANE
from tests.system.load import Load, server
from tests.system.world import World, hostlane, kill_links
from tests.tools.process import Process, Proxy
from tests.tools.sockets import eventually, exchange, owner_of, read_to_end

pytestmark = [pytest.mark.netns, pytest.mark.failure(6, 8, 10)]

LONG = {"limits": {"stop_timeout": "1m", "open_timeout": "20s"}}
WHAT = "req=8,ping=24"


@contextmanager
def successor(proxy: Proxy, *words: str) -> Iterator[Process]:
    """A new process of the same command, that takes over."""
    with Process([*proxy.argv, "--takeover", *words], host=proxy.host) as process:
        yield process


@contextmanager
def loaded(lab: Lab, **options: Any) -> Iterator[World]:
    """Proxies with the benchmark's server behind both services."""
    with World(lab, echo=False, more=LONG, **options) as world:
        with server(lab.b, world.deliver("unix"), world.deliver("tcp")):
            yield world


def takes_over(world: World, side: str, stack: ExitStack) -> Process:
    """The proxy of a host is replaced; the new process, when it is ready and the old one has let go."""
    old: Proxy = getattr(world, side)
    new = stack.enter_context(successor(old))
    new.wait_for("proxy ready")
    assert new.wait_for("proxy taken over")["from_pid"] == old.pid
    assert old.wait_for("proxy handed over")["pid"] == new.pid
    return new


def carried(world: World, side: str) -> None:
    """Wait until calls are carried by the process that answers now."""
    before = world.ask(side, "status")["streams_opened"]
    eventually(lambda: world.ask(side, "status")["streams_opened"] > before + 100, "calls")


def over(world: World) -> None:
    """Wait until no stream is left: what ends the test ends nothing else."""
    eventually(lambda: not any(world.ask(side, "status")["streams"] for side in "ab"), "the end of all streams")


@pytest.mark.parametrize(("kind", "mtls"), [("unix", True), ("tcp", False)])
@pytest.mark.parametrize("side", ["a", "b"], ids=["the caller's proxy", "the service's proxy"])
def test_an_upgrade_under_load(lab: Lab, side: str, kind: str, mtls: bool) -> None:
    with loaded(lab, mtls=mtls) as world, ExitStack() as stack:
        old: Proxy = getattr(world, side)
        with Load(lab.a, world.listen(kind), WHAT) as load:
            new = takes_over(world, side, stack)
            assert world.ask(side, "status")["pid"] == new.pid
            carried(world, side)
            assert old.running, "it keeps its streams"
        assert load.figures.errors == 0
        assert load.figures.round_trips > 200
        over(world)
        assert old.wait() == 0
        assert not old.events("streams were cut")
        assert not old.events("stream ended", level="warning")
        assert not new.events("stream ended", level="warning")


@pytest.mark.failure("24", 7)
@pytest.mark.parametrize("mtls", [False, True])
@pytest.mark.parametrize("side", ["a", "b"], ids=["the caller's proxy", "the service's proxy"])
def test_links_that_are_killed_while_the_old_process_drains(lab: Lab, side: str, mtls: bool) -> None:
    """host-a has dialled: once the process that drains is the dialler, once the acceptor. Every byte is checked."""
    with loaded(lab, mtls=mtls) as world, ExitStack() as stack:
        old: Proxy = getattr(world, side)
        with Load(lab.a, world.listen("unix"), WHAT) as load:
            takes_over(world, side, stack)
            carried(world, side)
            for number in range(1, 5):
                seen = len(old.log)
                kill_links(lab.hosts[number % 2])
                old.wait_for("link up", since=seen, resumed=number)
                carried(world, side)
            assert old.running
        assert load.figures.errors == 0
        over(world)
        assert old.wait() == 0
        assert not old.events("streams were cut")


@pytest.mark.failure("24", 7)
@pytest.mark.parametrize("mtls", [False, True])
def test_a_process_that_drains_outlives_its_successor(lab: Lab, mtls: bool) -> None:
    """The newest is killed, the next one is started afresh: it finds the old one, and passes its links on."""
    with World(lab, more=LONG, mtls=mtls) as world:
        with world.call("tcp") as client:
            exchange(client, b"before")
            old = world.b
            with successor(old) as new:
                new.wait_for("proxy taken over")
                new.kill()
            exchange(client, b"the newest is gone")
            with Process(old.argv, host=old.host) as newest:
                found = newest.wait_for("a process that was taken over goes on beside this one")
                assert found["process"].startswith(f"{old.pid}-")
                newest.wait_for("proxy ready")
                kill_links(lab.b)
                exchange(client, b"over another link")
                newest.wait_for("link passed on")
                with world.call("unix") as other:
                    exchange(other, b"through the newest")
                client.close()
                assert old.wait() == 0


def test_again_and_again_under_load(lab: Lab) -> None:
    """Each process hands over to the next, on both hosts in turn."""
    with loaded(lab) as world, ExitStack() as stack:
        with Load(lab.a, world.listen("unix"), WHAT) as load:
            for number in range(4):
                side = "ab"[number % 2]
                new = stack.enter_context(successor(getattr(world, side)))
                new.wait_for("proxy ready")
                new.wait_for("proxy taken over")
                assert world.ask(side, "status")["pid"] == new.pid
                carried(world, side)
        assert load.figures.errors == 0
        over(world)
        assert world.a.wait() == world.b.wait() == 0


def test_one_link_per_peer_is_enough(lab: Lab) -> None:
    """The links of the process that leaves do not keep those of the new one out."""
    more = {**LONG, "links": {"max_per_peer": 1}}
    for side in "ab":
        with World(lab, more=more) as world, ExitStack() as stack:
            with world.call("tcp") as client:
                exchange(client, b"before")
                takes_over(world, side, stack)
                with world.call("tcp") as other:
                    exchange(other, b"through the new one")
                exchange(client, b"through the old one")
            assert getattr(world, side).wait() == 0
            assert world.echoes["tcp"].resets == 0


def test_streams_that_stay_are_cut_at_the_deadline_and_not_before(lab: Lab) -> None:
    with World(lab, more={"limits": {"takeover_timeout": "2s"}}) as world, ExitStack() as stack:
        with world.call("tcp") as client:
            exchange(client, b"before")
            takes_over(world, "a", stack)
            exchange(client, b"still there")
            assert read_to_end(client).reset
        assert world.a.wait() == 0
        assert world.a.wait_for("streams were cut")["streams"] == 1


def test_nobody_to_take_over_from(lab: Lab) -> None:
    with World(lab) as world:
        assert world.a.stop() == 0
        with successor(world.a) as new:
            new.wait_for("proxy ready")
            assert new.events("nobody to take over from")
            with world.call("unix") as client:
                exchange(client, b"hello")


def test_without_the_option_there_is_no_second_one(lab: Lab) -> None:
    with World(lab) as world:
        done = hostlane("proxy", "--config", str(world.a.file), host=lab.a)
        assert done.returncode == 2
        assert f"process {world.a.pid} already listens there" in done.stderr
        assert world.a.running


def test_files_are_those_of_the_new_process(lab: Lab) -> None:
    """The old one takes nothing away when it ends; the new one does; one that nobody wants any more goes at once."""
    with World(lab, more=LONG) as world, ExitStack() as stack:
        gone = world.folder / "a" / "gone.sock"
        config = json.loads(world.a.file.read_text())
        more = {**config["upstreams"], "tcp": {"listen": f"unix:{gone}"}}
        world.a.file.write_text(json.dumps({**config, "upstreams": more}))
        assert hostlane("reload", "--config", str(world.a.file)).returncode == 0
        assert gone.is_socket()
        world.a.file.write_text(json.dumps(config))
        path = Path(world.listen("unix").removeprefix("unix:"))
        inode = path.stat().st_ino
        new = takes_over(world, "a", stack)
        eventually(lambda: not gone.exists(), "it is unlinked")
        with world.call("tcp") as client:
            exchange(client, b"a socket that only the new one has")
        assert world.a.wait() == 0
        assert path.stat().st_ino == inode
        assert owner_of(world.folder / "a" / "run" / "next.sock")
        assert new.stop() == 0
        assert not path.exists()
        assert not list((world.folder / "a").rglob("*.sock"))


STANDS_STILL = """
import os, time
from control.cli.main import main
from proxy.pool.record import Recorder

def stand(self, then=Recorder.open):
    print('{"event": "standing still"}', flush=True)
    while not os.path.exists(GO):
        time.sleep(0.05)
    then(self)

Recorder.open = stand
main()
"""


class Blocked:
    """A successor that knows of all sockets and cannot go on: the disk that it records to stands still."""

    def __init__(self, world: World, side: str) -> None:
        old: Proxy = getattr(world, side)
        text = old.file.read_text().rstrip().removesuffix("}")
        self.file = world.folder / side / "blocked.yaml"
        self.file.write_text(f'{text}, "pool": {{"record": "{world.folder / side / "record"}"}} }}')
        assert old.argv[: len(HOSTLANE)] == HOSTLANE
        words = ["proxy", "--config", str(self.file), "--takeover"]
        self._go = world.folder / side / "go"
        program = STANDS_STILL.replace("GO", repr(str(self._go)))
        self.process = Process([sys.executable, "-P", "-c", program, *words], host=old.host)

    def stands_still(self) -> None:
        """Wait until it does."""
        self.process.wait_for("standing still")

    def go_on(self) -> None:
        """The disk moves again."""
        self._go.touch()


@pytest.mark.parametrize("side", ["a", "b"])
def test_a_successor_that_is_killed_before_it_is_ready(lab: Lab, side: str) -> None:
    """kill -9 when it knows of every socket: the old one goes on as if nothing had happened."""
    with loaded(lab) as world, ExitStack() as stack:
        with Load(lab.a, world.listen("unix"), WHAT) as load:
            for _ in range(2):
                seen = len(getattr(world, side).log)
                blocked = Blocked(world, side)
                blocked.process.start()
                blocked.stands_still()
                blocked.process.kill()
                getattr(world, side).wait_for("proxy not handed over", since=seen)
            assert world.ask(side, "status")["pid"] == getattr(world, side).pid
            takes_over(world, side, stack)
            carried(world, side)
        assert load.figures.errors == 0
        over(world)


HALFWAY = """
import sys, trio
from proxy.agent.handover import receiver
from proxy.agent.handover.inheritance import InheritedListeners
from proxy.agent.handover.protocol import HandoverStep, expect, send

async def main():
    found = await receiver.Predecessor.meet(sys.argv[1], sys.argv[2], InheritedListeners())
    await send(found._sock, HandoverStep(word="ready"))
    await expect(found._sock, "yours")
    await found._receive_state(None)
    for each in found._stand_ins:
        await receiver._receive_one(found._sock, each)
    print('{"event": "held"}', flush=True)
    await trio.sleep(3600)

trio.run(main)
"""


@pytest.mark.parametrize("side", ["a", "b"])
def test_a_successor_that_is_killed_at_the_last_moment(lab: Lab, side: str) -> None:
    """It has every socket, and the old one has stopped accepting for it: that one takes what came meanwhile."""
    with loaded(lab) as world:
        old: Proxy = getattr(world, side)
        argv = [sys.executable, "-c", HALFWAY, f"{world.folder}/{side}/run/next.sock", f"host-{side}"]
        with Load(lab.a, world.listen("unix"), WHAT) as load:
            for _ in range(3):
                seen = len(old.log)
                halfway = Process(argv, host=old.host)
                halfway.start()
                halfway.wait_for("held")
                halfway.kill()
                old.wait_for("proxy not handed over", since=seen)
                carried(world, side)
        assert load.figures.errors == 0
        assert old.running
        over(world)


@pytest.mark.failure("21")
def test_a_predecessor_that_is_killed_before_it_hands_over(lab: Lab) -> None:
    """Its sockets are gone with it: the successor starts as if there had been nobody."""
    with World(lab, more=LONG) as world:
        blocked = Blocked(world, "a")
        with blocked.process:
            blocked.stands_still()
            world.a.kill()
            blocked.go_on()
            blocked.process.wait_for("proxy ready")
            with world.call("unix") as client:
                exchange(client, b"to the new one")


def test_a_successor_that_cannot_start(lab: Lab) -> None:
    with World(lab, more=LONG) as world, socket.create_server(("127.0.0.1", 0)):
        good = world.a.file.read_text()
        taken = world.folder / "a" / "taken.sock"
        taken.write_text("a file of somebody's")
        world.a.file.write_text(good.replace('"calls.sock', '"x').replace("calls.sock", "taken.sock"))
        done = hostlane(*world.a.argv[len(world.a.argv) - 3 :], "--takeover", host=lab.a)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert "is a regular file; remove it or choose another path" in done.stderr
        world.a.wait_for("proxy not handed over")
        with world.call("unix") as client:
            exchange(client, b"as before")
        assert Path(world.listen("unix").removeprefix("unix:")).is_socket()
        world.a.file.write_text("host: [")
        assert hostlane("proxy", "--config", str(world.a.file), "--takeover", host=lab.a).returncode == 2
        assert world.a.running


def test_another_hosts_configuration(lab: Lab) -> None:
    with World(lab) as world:
        text = world.a.file.read_text().replace('"host": "host-a"', '"host": "host-x"')
        world.a.file.write_text(text)
        done = hostlane("proxy", "--config", str(world.a.file), "--takeover", host=lab.a)
        assert done.returncode == 2
        assert "it is the proxy of host 'host-a', this is that of 'host-x'" in done.stderr


def test_a_proxy_that_starts_its_own_successor(lab: Lab) -> None:
    """SIGUSR2. (systemd is told which process counts from then on.)"""
    with World(lab, more=LONG) as world:
        told: list[str] = []
        with notified(world.folder / "notify", told) as address:
            os.environ["NOTIFY_SOCKET"] = address
            try:
                world.a.stop()
                world.a.restart()
            finally:
                del os.environ["NOTIFY_SOCKET"]
            old = world.a.pid
            with world.call("unix") as client:
                exchange(client, b"before")
                os.kill(old, signal.SIGUSR2)
                new = world.a.wait_for("successor started")["pid"]
                world.a.wait_for("proxy handed over", pid=new)
                eventually(lambda: world.ask("a", "status")["pid"] == new, "the new one answers")
                exchange(client, b"the old one goes on")
            eventually(lambda: not Path(f"/proc/{old}").exists() or not world.a.running, "it ends")
            with world.call("unix") as client:
                exchange(client, b"after")
            os.kill(new, signal.SIGTERM)
            eventually(lambda: len(told) == 4, "the last word")
            eventually(lambda: not Path(f"/proc/{new}/exe").exists(), "the new one ends")
        assert told[0] == "READY=1"
        assert told[1:3] == [f"MAINPID={new}", "READY=1"]
        assert told[3].startswith("STOPPING=1")


@contextmanager
def notified(path: Path, told: list[str]) -> Iterator[str]:
    """A stand-in for systemd that writes down what it is told."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        sock.settimeout(0.1)
        done = threading.Event()

        def listen() -> None:
            while not done.is_set():
                try:
                    told.append(sock.recv(1000).decode())
                except TimeoutError:
                    continue

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield str(path)
        finally:
            done.set()
            thread.join()


def test_reload_and_drain_from_the_command_line(lab: Lab) -> None:
    with World(lab, more=LONG) as world:
        config = ["--config", str(world.a.file)]
        text = world.a.file.read_text()
        world.a.file.write_text(text.replace('"stop_timeout": "1m"', '"stop_timeout": "50s"'))
        done = hostlane("reload", *config)
        assert (done.returncode, done.stdout, done.stderr) == (0, "limits.stop_timeout: 60 → 50\n", "")
        world.a.file.write_text(text.replace('"stop_timeout": "1m"', '"stop_timeout": "soon"'))
        done = hostlane("reload", *config, "--json")
        assert done.returncode == 2
        assert re.fullmatch(rf"{world.a.file}:\d+: limits\.stop_timeout: found \"soon\"; allowed: .*\n", done.stderr)
        assert json.loads(done.stdout)["outcome"] == "wrong"
        world.a.file.write_text(text.replace('"host-a"', '"host-z"', 1))
        done = hostlane("reload", *config)
        assert (done.returncode, done.stderr.partition(";")[0]) == (1, "host: found host-z, running with host-a")
        world.a.file.write_text(text)
        with world.call("unix") as client:
            exchange(client, b"x")
            results: list[Any] = []
            thread = threading.Thread(target=lambda: results.append(hostlane("drain", *config)))
            thread.start()
            world.a.wait_for("proxy stopping")
            assert world.ask("a", "status")["draining"]
            exchange(client, b"it may finish")
        thread.join()
        assert results[0].returncode == 0, results[0].stderr
        assert f"{os.getuid()}" in results[0].stdout
        assert results[0].stdout.splitlines()[-1] == "drained; no stream was cut"
        assert world.a.wait() == 0


def test_drain_at_once(lab: Lab) -> None:
    with World(lab, more=LONG) as world, world.call("tcp") as client:
        exchange(client, b"x")
        done = hostlane("drain", "--now", "--config", str(world.b.file))
        assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "drained; 1 streams were cut")
        assert read_to_end(client).reset
        assert world.b.wait() == 0
