"""A proxy with few descriptors, and somebody who takes all that can be had: everybody else is served."""

from __future__ import annotations

import select
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from proxy.errors import CloseReason
from proxy.mux.frames import FrameKind, encode
from tests.system.test_hostile_peer import Hostile, opening
from tests.system.world import ask
from tests.tools.process import Process, Proxy
from tests.tools.servers import Echo
from tests.tools.sockets import connect, count_fds, eventually, exchange, free_ports, read_to_end, say

pytestmark = pytest.mark.failure("21b-b")

LIMIT = 400
LIMITED = f"""
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({LIMIT}, {LIMIT}))
os.execv(sys.argv[1], sys.argv[1:])
"""


class Host:
    """A proxy that may open LIMIT descriptors, with two services of its own, each called through a Unix socket.

    ``circle``: a program instead of the greedy service, and through which kind of socket that calls it again.
    """

    def __init__(self, folder: Path, stack: ExitStack, circle: str = "") -> None:
        self.port, through, behind = free_ports(3)
        self.admin = folder / "run" / "admin.sock"
        self.listen = {name: f"unix:{folder}/{name}.sock" for name in ("greedy", "modest", "away")}
        deliver = {name: f"unix:{folder}/{name}.service" for name in ("greedy", "modest")}
        if circle == "tcp":
            self.listen["greedy"], deliver["greedy"] = f"tcp:127.0.0.1:{through}", f"tcp:127.0.0.1:{behind}"
        config: dict[str, Any] = {
            "host": "host-b",
            "run_dir": f"{folder}/run",
            "links": {"listen": f"127.0.0.1:{self.port}", "security": "none", "resume_timeout": "100ms"},
            "peers": {"host-c": {"address": "127.0.0.9:7600", "services": ["away"]}},
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

    def serves_others(self) -> None:
        """Calls of the other upstream, and commands, are answered as ever."""
        for number in range(30):
            with connect(self.listen["modest"]) as caller:
                exchange(caller, b"%d" % number)
        assert ask(self.admin, "status")["host"] == "host-b"
        assert count_fds(self.proxy.pid) < LIMIT


@pytest.fixture
def host() -> Iterator[Host]:
    folder = Path(tempfile.mkdtemp(prefix="hl-"))
    with ExitStack() as stack:
        yield Host(folder, stack)
    shutil.rmtree(folder)


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
