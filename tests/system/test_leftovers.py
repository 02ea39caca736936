"""10,000 streams in mixed order, half of them aborted: afterwards nothing is left of them."""

from __future__ import annotations

import os
import socket
import threading
from collections import Counter
from contextlib import suppress
from random import Random

import pytest

from proxy.demo.lab import Lab
from tests.system.world import KINDS, World
from tests.tools.servers import Listener
from tests.tools.sockets import abort, count_fds, eventually

pytestmark = [pytest.mark.netns, pytest.mark.failure(1)]

STREAMS = 10_000
HELD = 250
"""Streams open at a time."""
ENDINGS = b"CFHRSAUK"
"""What the caller says first, which is how its stream will end:

C the caller closes, F ends its direction and reads on, H the server ends its direction first and reads on, S the server
closes; and, aborted: R the caller resets, A the server resets, U the caller closes with bytes unread, K the server
does.
"""


class Server(threading.Thread):
    """Echoes the first byte of each connection and ends it as that says."""

    def __init__(self, listener: Listener) -> None:
        super().__init__(daemon=True)
        self.listener = listener
        self.seen: Counter[str] = Counter()
        self.start()

    def run(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self.listener.sock.accept()
                sock.settimeout(20)
                threading.Thread(target=self._serve, args=[sock], daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        how = sock.recv(1)
        with suppress(ConnectionError):
            sock.sendall(how)
            if how in b"SA":
                (abort if how == b"A" else socket.socket.close)(sock)
            elif how == b"K":
                sock.recv(1, socket.MSG_PEEK)
                sock.close()
            else:
                if how == b"H":
                    sock.shutdown(socket.SHUT_WR)
                while sock.recv(4096):
                    pass
        sock.close()
        self.seen[how.decode()] += 1


def begin(world: World, kind: str, how: bytes) -> socket.socket:
    client = world.call(kind)
    client.sendall(how + (b"never read" if how == b"K" else b""))
    if how != b"U":
        assert client.recv(1) in (how, b"")
    return client


def finish(client: socket.socket, how: bytes) -> None:
    with suppress(ConnectionError):
        if how == b"R":
            return abort(client)
        if how == b"U":
            client.recv(1, socket.MSG_PEEK)
        if how in b"FHS":
            client.shutdown(socket.SHUT_WR)
            while client.recv(4096):
                pass
    client.close()


def weigh(world: World) -> dict[str, int]:
    """What may be left over: descriptors, threads, streams."""
    found: dict[str, int] = {}
    for host, proxy in (("a", world.a), ("b", world.b)):
        found[f"{host} streams"] = world.ask(host, "status")["streams"] + len(world.ask(host, "streams"))
        found[f"{host} threads"] = len(os.listdir(f"/proc/{proxy.pid}/task"))
        # The question itself may still have one.
        found[f"{host} descriptors"] = count_fds(proxy.pid)
    return found


def nothing_more(world: World, before: dict[str, int]) -> bool:
    now = weigh(world)
    return all(now[name] <= before[name] for name in before)


def test_nothing_is_left_of_ten_thousand_streams(lab: Lab) -> None:
    random = Random(20)
    with World(lab, echo=False, more={"links": {"max_per_peer": 1}, "log": {"level": "info"}}) as world:
        listeners = {kind: Listener(world.deliver(kind), world.server_socket(kind)) for kind in KINDS}
        servers = {kind: Server(listener) for kind, listener in listeners.items()}
        for kind in KINDS:
            finish(begin(world, kind, b"C"), b"C")
        world.wait_until_idle()
        before = weigh(world)
        held: list[tuple[socket.socket, bytes]] = []
        for number in range(STREAMS):
            how = ENDINGS[number % 8 : number % 8 + 1]
            held.append((begin(world, KINDS[random.random() < 0.5], how), how))
            if len(held) >= HELD:
                held[0], held[place] = held[(place := random.randrange(HELD))], held[0]
                finish(*held.pop(0))
        random.shuffle(held)
        for client, how in held:
            finish(client, how)
        world.wait_until_idle()
        eventually(lambda: nothing_more(world, before), f"back to {before}")
        status = world.ask("a", "status")
        assert status["streams_opened"] == STREAMS + 2
        assert status["memory_used"] <= 8 * 256 * 1024, "bytes of streams that are gone"
        eventually(lambda: sum(sum(server.seen.values()) for server in servers.values()) == STREAMS + 2, "all ended")
        assert world.links() == 1
        for listener in listeners.values():
            listener.sock.shutdown(socket.SHUT_RDWR)
            listener.close()
