"""A proxy with few descriptors, and somebody who takes all that can be had: everybody else is served."""

from __future__ import annotations

import select
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.errors import CloseReason
from proxy.mux.frames import FrameKind, encode
from tests.system.test_hostile_peer import Hostile, opening
from tests.system.world import ask
from tests.tools.process import Process, Proxy
from tests.tools.servers import Echo
from tests.tools.sockets import (
    connect,
    count_fds,
    eventually,
    exchange,
    free_port,
    free_ports,
    read_exactly,
    read_to_end,
    say,
)

pytestmark = pytest.mark.failure("21b-b")

LIMIT = 400
LINKS = 8
PATIENT = {"resume_timeout": "1m", "refused_timeout": "1m"}
LIMITED = f"""
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({LIMIT}, {LIMIT}))
os.execv(sys.argv[1], sys.argv[1:])
"""


class Host:
    """A proxy that may open LIMIT descriptors, with two services of its own, each called through a Unix socket.

    ``circle``: a program instead of the greedy service, and through which kind of socket that calls it again.
    ``links``: more for the section of that name. `honest_peer` is a peer of it, host-a.
    """

    def __init__(self, folder: Path, stack: ExitStack, circle: str = "", **links: Any) -> None:
        self.folder, self.stack = folder, stack
        self.port, self.peers_port, through, behind = free_ports(4)
        self.admin = folder / "run" / "admin.sock"
        self.listen = {name: f"unix:{folder}/{name}.sock" for name in ("greedy", "modest", "away", "far")}
        deliver = {name: f"unix:{folder}/{name}.service" for name in ("greedy", "modest")}
        if circle == "tcp":
            self.listen["greedy"], deliver["greedy"] = f"tcp:127.0.0.1:{through}", f"tcp:127.0.0.1:{behind}"
        config: dict[str, Any] = {
            "host": "host-b",
            "run_dir": f"{folder}/run",
            "links": {"listen": f"127.0.0.1:{self.port}", "security": "none", "resume_timeout": "100ms", **links},
            "peers": {
                "host-a": {"address": f"127.0.0.1:{self.peers_port}", "services": ["far"]},
                "host-c": {"address": "127.0.0.9:7600", "services": ["away"]},
            },
            "upstreams": {name: {"listen": listen} for name, listen in self.listen.items()},
            "services": {name: {"deliver": address} for name, address in deliver.items()},
            "log": {"format": "json"},
        }
        if circle:
            again = ["-m", "tests.tools.forwarder", deliver.pop("greedy"), self.listen["greedy"]]
            self.program = stack.enter_context(Process([sys.executable, *again]))
            self.program.wait_for("forwarding")
        for address in deliver.values():
            stack.enter_context(Echo(address))
        self.proxy = Proxy(config, folder)
        self.proxy.argv = [sys.executable, "-c", LIMITED, *self.proxy.argv]
        stack.enter_context(self.proxy)

    def honest_peer(self, *, is_dialled: bool = False) -> Proxy:
        """The proxy of host-a, which runs: it calls this host's modest service at `listen`["from host-a"], and offers
        "far". It dials, as host-b has a wrong address for it; ``is_dialled``: the other way round.
        """
        wrong = free_port()
        own, here = (self.peers_port, wrong) if is_dialled else (wrong, self.port)
        folder = self.folder / "a"
        folder.mkdir()
        self.listen["from host-a"] = f"unix:{folder}/modest.sock"
        self.stack.enter_context(Echo(f"unix:{folder}/far.service"))
        config = {
            "host": "host-a",
            "run_dir": f"{folder}/run",
            "links": {"listen": f"127.0.0.1:{own}", "security": "none", **PATIENT},
            "peers": {"host-b": {"address": f"127.0.0.1:{here}", "services": ["modest"]}},
            "upstreams": {"modest": {"listen": self.listen["from host-a"]}},
            "services": {"far": {"deliver": f"unix:{folder}/far.service"}},
            "log": {"format": "json"},
        }
        return self.stack.enter_context(Proxy(config, folder))

    def serves_others(self) -> None:
        """Calls of the other upstream, and commands, are answered as ever."""
        for number in range(30):
            with connect(self.listen["modest"]) as caller:
                exchange(caller, b"%d" % number)
        assert ask(self.admin, "status")["host"] == "host-b"
        assert count_fds(self.proxy.pid) < LIMIT


@contextmanager
def running(**links: Any) -> Iterator[Host]:
    folder = Path(tempfile.mkdtemp(prefix="hl-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        yield Host(folder, stack, **links)


@pytest.fixture
def host() -> Iterator[Host]:
    with running() as host:
        yield host


@pytest.mark.parametrize("talks", [False, True], ids=["idle connections", "connections that were used"])
def test_one_upstream_that_takes_all_it_can(host: Host, talks: bool) -> None:
    with ExitStack() as stack:
        callers = []
        for number in range(LIMIT):
            callers.append(stack.enter_context(connect(host.listen["greedy"])))
            if talks and number < 100:
                exchange(callers[-1], b"first")
        waits = host.proxy.wait_for("callers wait for descriptors", listen=host.listen["greedy"])
        assert waits["why"].endswith(("the rest is for others", "nearly used up"))
        host.serves_others()
        assert not host.proxy.events("cannot accept a connection")
        assert not host.proxy.events("callers wait for descriptors", listen=host.listen["modest"])
        for caller in callers[: LIMIT // 2]:
            caller.close()
        for caller in callers[LIMIT // 2 :]:
            exchange(caller, b"its turn has come")
            caller.close()
    eventually(lambda: ask(host.admin, "status")["streams"] == 0, "all descriptors are back")


def test_a_peer_that_takes_all_it_can(host: Host) -> None:
    """It is told that this host cannot, so that an honest one would try the next."""
    with connect(f"tcp:127.0.0.1:{host.port}", socket.socket()) as sock:
        peer = Hostile(sock)
        count = 3 * LIMIT
        sock.sendall(b"".join(opening(stream_id, "greedy") for stream_id in range(1, 2 * count, 2)))
        opened, refused = 0, []
        while opened + len(refused) < count:
            kind, _, payload = peer.frame()
            opened += kind is FrameKind.OPENED
            refused += payload if kind is FrameKind.REFUSE else b""
        assert set(refused) == {CloseReason.OVERLOADED}, "local_shortage, which it has not said that it knows"
        assert LIMIT // 2 < opened < LIMIT
        host.serves_others()
    eventually(lambda: ask(host.admin, "status")["streams"] == 0, "all descriptors are back")
    with connect(host.listen["greedy"]) as caller:
        exchange(caller, b"as before")


@pytest.mark.parametrize("in_turn", [True, False], ids=["links in turn", "one link after the other"])
def test_all_links_of_a_peer_have_one_share_of_descriptors(in_turn: bool) -> None:
    with running(max_per_peer=LINKS) as host, ExitStack() as stack:
        host.honest_peer()
        links = []
        for number in range(LINKS):
            sock = stack.enter_context(connect(f"tcp:127.0.0.1:{host.port}", socket.socket()))
            links.append(Hostile(sock, f"number {number}"))
        each, found = 3 * LIMIT // LINKS, Counter[FrameKind]()
        for first in range(0, each, 10) if in_turn else (0,):
            for link in links:
                found += answers(link, first, first + 10 if in_turn else each)
        assert found[FrameKind.OPENED] + found[FrameKind.REFUSE] == each * LINKS
        assert LIMIT // 2 < found[FrameKind.OPENED] <= 4 * LIMIT // 5, "what one link of it would get"
        host.serves_others()
        for number in range(30):
            with connect(host.listen["from host-a"]) as caller:
                exchange(caller, b"of another peer %d" % number)
        assert not host.proxy.events("stream ended", level="warning", peer="host-a")
        assert not host.proxy.events("callers wait for descriptors", listen=host.listen["modest"])


def answers(link: Hostile, first: int, behind: int) -> Counter[FrameKind]:
    """What a link's calls of those numbers are answered."""
    link.sock.sendall(b"".join(opening(1 + 2 * number, "greedy") for number in range(first, behind)))
    found = Counter[FrameKind]()
    while found.total() < behind - first:
        kind = link.frame()[0]
        found[kind] += kind in (FrameKind.OPENED, FrameKind.REFUSE)
    return found


@pytest.mark.parametrize("takers", [["greedy"], ["greedy", "modest", "away"]], ids=["one upstream", "all the others"])
@pytest.mark.parametrize("dials", [True, False], ids=["it dials", "it is dialled"])
def test_a_link_that_is_lost_comes_back_when_idle_callers_hold_all_descriptors(dials: bool, takers: list[str]) -> None:
    with running(**PATIENT) as host, ExitStack() as stack:
        peer = host.honest_peer(is_dialled=dials)
        caller = stack.enter_context(connect(host.listen["far" if dials else "from host-a"]))
        exchange(caller, b"before")
        for _ in range(LIMIT):
            for name in takers:
                stack.enter_context(connect(host.listen[name]))
        host.proxy.wait_for("callers wait for descriptors")  # those of one; the others' may wait for answers first
        for number in range(2):
            caller.sendall(b"under way")
            kill_connections(host.peers_port if dials else host.port)
            assert read_exactly(caller, 9) == b"under way"
            eventually(lambda lost=number + 1: resumed(host) == lost, "another link")  # type: ignore[misc]
            exchange(caller, b"after loss %d" % number)
        assert host.proxy.wait_for("link up", peer="host-a")["dialled"] is dials
        for proxy in (host.proxy, peer):
            assert not proxy.events("session ended")
            assert not proxy.events("stream ended", service="far" if dials else "modest", level="warning")
        assert not host.proxy.events("cannot accept a connection")


def resumed(host: Host) -> int:
    """How many links to host-a have taken a lost one's place; host-b answers commands."""
    return next(peer["resumed"] for peer in ask(host.admin, "status")["peers"] if peer["name"] == "host-a")


def kill_connections(port: int) -> None:
    """Reset every connection to a port of this machine, at both ends."""
    argv = ["ss", "-KHtn", "state", "established", f"( dport = :{port} or sport = :{port} )"]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


def test_a_caller_that_takes_all_it_can_costs_its_peer_nothing(host: Host) -> None:
    """Its connections are the caller's, not the peer's that they lead to."""
    with connect(f"tcp:127.0.0.1:{host.port}", socket.socket()) as sock, ExitStack() as stack:
        peer = Hostile(sock, max_streams=2 * LIMIT)
        for _ in range(LIMIT):
            stack.enter_context(connect(host.listen["away"]))
        while not host.proxy.events("callers wait for descriptors", listen=host.listen["away"]):
            if select.select([sock], [], [], 0.05)[0]:
                kind, _, payload = peer.frame()
                if kind is FrameKind.PING:  # whether the calls have arrived
                    sock.sendall(encode(FrameKind.PONG, 0, payload))
        sock.sendall(b"".join(opening(stream_id, "modest") for stream_id in range(1, 41, 2)))
        answers: list[FrameKind] = []
        while len(answers) < 20:
            kind = peer.frame()[0]
            answers += [kind] if kind in (FrameKind.OPENED, FrameKind.REFUSE) else []
        assert set(answers) == {FrameKind.OPENED}
        host.serves_others()


@pytest.mark.failure("28")
@pytest.mark.parametrize("kind", ["unix", "tcp"])
@pytest.mark.parametrize("ending", ["the caller leaves", "the program is killed"])
def test_a_circle_through_another_program(kind: str, ending: str) -> None:
    """It cannot be recognised: it takes its share, `status` names who makes it, and all comes back when it ends."""
    folder = Path(tempfile.mkdtemp(prefix="hl-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        host = Host(folder, stack, kind)
        host.serves_others()
        before = count_fds(host.proxy.pid)
        with connect(host.listen["greedy"]) as caller:
            say(caller, b"round and round")
            host.proxy.wait_for("callers wait for descriptors", listen=host.listen["greedy"])
            host.serves_others()
            assert not host.proxy.events("callers wait for descriptors", listen=host.listen["modest"])
            source = ask(host.admin, "status")["busiest"]
            assert (source["service"], source["pid"], source["address"]) == (
                ("greedy", host.program.pid, None) if kind == "unix" else ("greedy", None, "127.0.0.1")
            )
            assert source["streams"] > LIMIT // 8
            if ending == "the program is killed":
                host.program.kill()
                assert read_to_end(caller).received == b""
        eventually(lambda: ask(host.admin, "status")["streams"] == 0, "the circle has ended")
        # But for those that come and go: a dial of a host that is silent, whoever asks, the kernel's news.
        eventually(lambda: count_fds(host.proxy.pid) <= before + 4, "all descriptors are back")
        host.serves_others()
