"""How much memory streams take: ``python -m tests.system.memory --idle 8500 --stalled 1000``, as root.

Prints, for both proxies, the memory before, with so many idle streams, and with so many more whose reader has stopped
and whose caller has sent all it can. docs/memory.md has the figures and the bound.
"""

from __future__ import annotations

import argparse
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from proxy.demo.lab import Lab
from tests.system.world import World
from tests.tools.servers import Listener
from tests.tools.sockets import eventually

KIB = 1024
STALLING = b"x" * (64 * KIB)


def resident(pid: int) -> int:
    """Bytes of memory that a process has for itself: its resident set without what is mapped from files."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * KIB
    raise AssertionError(f"no RssAnon in the status of {pid}")


def both(world: World) -> dict[str, int]:
    """Of each proxy."""
    return {"a": resident(world.a.pid), "b": resident(world.b.pid)}


def descriptors(wanted: int) -> None:
    """Let this process, and what it starts, have so many; OSError or ValueError if the machine does not allow it, which
    root may beyond the hard limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))


class Streams:
    """Streams through a world, from caller to service, in which nobody moves."""

    def __init__(self, world: World, listener: Listener, stack: ExitStack) -> None:
        self.world, self._listener, self._stack = world, listener, stack
        self.count = 0

    def open(self, count: int) -> list[socket.socket]:
        """So many more; each has carried one byte both ways. Returns the callers' sockets."""
        callers = [self._open() for _ in range(count)]
        self.count += count
        return callers

    def _open(self) -> socket.socket:
        client = self._stack.enter_context(self.world.call("unix"))
        client.sendall(b"?")
        server = self._stack.enter_context(self._listener.accept())
        server.sendall(server.recv(1))
        assert client.recv(1) == b"?"
        return client

    def stall(self, callers: list[socket.socket]) -> None:
        """Have each send until it is stopped because its reader has."""
        for client in callers:
            client.setblocking(False)
        eventually(lambda: self._stalled(callers), "every caller is stopped")

    def _stalled(self, callers: list[socket.socket]) -> bool:
        for client in callers:
            fill(client)
        states = self.world.ask("a", "streams")
        return sum(stream["credit"] == 0 for stream in states) == len(callers)


def fill(client: socket.socket) -> None:
    """Send what the socket takes now."""
    try:
        while True:
            client.send(STALLING)
    except BlockingIOError:
        pass


@contextmanager
def streams(lab: Lab, **limits: str) -> Iterator[Streams]:
    """A world to hold streams in, warmed up by a few that are gone again."""
    more = {"log": {"level": "info"}, "limits": limits}
    with World(lab, echo=False, more=more) as world, Listener(world.deliver("unix")) as listener:
        with ExitStack() as warming:
            Streams(world, listener, warming).open(20)
        world.wait_until_idle()
        with ExitStack() as stack:
            yield Streams(world, listener, stack)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Memory of idle and of stalled streams, between two network namespaces."
    )
    parser.add_argument("--idle", type=int, default=9500)
    parser.add_argument("--stalled", type=int, default=1000)
    parser.add_argument("--credit", default="256KiB")
    wanted = parser.parse_args()
    descriptors(2 * (wanted.idle + wanted.stalled) + 200)
    with Lab() as lab, streams(lab, stream_credit=wanted.credit) as held:
        rows = [("started", 0, both(held.world))]
        held.open(wanted.idle)
        rows.append((f"+ {wanted.idle} idle", wanted.idle, both(held.world)))
        held.stall(held.open(wanted.stalled))
        rows.append((f"+ {wanted.stalled} stalled", wanted.stalled, both(held.world)))
        buffered = {host: sum(stream["buffered"] for stream in held.world.ask(host, "streams")) for host in "ab"}
        report(rows, buffered)


def report(rows: list[tuple[str, int, dict[str, int]]], buffered: dict[str, int]) -> None:
    """A table for people."""
    print(f"{'':18}{'caller side':>24}{'service side':>24}")  # noqa: T201
    before = rows[0][2]
    for name, count, now in rows:
        grown = [f"{(now[host] - before[host]) / KIB / count:8.1f} KiB each" if count else " " * 17 for host in "ab"]
        sizes = [f"{now[host] / KIB / KIB:6.1f} MiB" for host in "ab"]
        print(f"{name:18}" + "".join(f"{size}{each:>17}" for size, each in zip(sizes, grown, strict=True)))  # noqa: T201
        before = now
    print(f"buffered for sockets: {buffered['a'] / KIB / KIB:.1f} and {buffered['b'] / KIB / KIB:.1f} MiB")  # noqa: T201


if __name__ == "__main__":
    main()
