"""Several addresses, one connection: the first that accepts gets it, whatever becomes of the others."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress

import pytest
import trio

from proxy.errors import CloseReason
from proxy.pump import race
from proxy.pump.heartbeat import Heartbeat
from proxy.pump.options import LocalSocket
from proxy.pump.ourselves import OwnConnections
from proxy.pump.race import Done, Race
from tests.pump.rig import Host, running, until
from tests.tools.ownnet import in_own_network
from tests.tools.sockets import PATIENCE, fds_since, free_port, open_fds

SILENT = "127.0.0.2"
REFUSES = "127.0.0.3"
ALIVE = "127.0.0.4"


class Track:
    """Addresses of one port: one that answers no SYN (its backlog is full), one that refuses, one that accepts."""

    def __init__(self, host: Host, stack: ExitStack) -> None:
        self.host, self.stack = host, stack
        self.port = free_port()  # the kernel may give one that somebody has at SILENT
        self.service = stack.enter_context(socket.create_server((ALIVE, self.port)))
        self.silent = stack.enter_context(socket.create_server((SILENT, self.port), backlog=0))
        self.silent.setblocking(False)
        for _ in range(3):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(self.silent.getsockname())
        self.lost: list[str] = []
        self.own = OwnConnections()
        self.ended: list[tuple[LocalSocket | None, CloseReason, str]] = []
        self.over = trio.Event()

    def done(self, sock: LocalSocket | None, reason: CloseReason, detail: str) -> None:
        self.ended.append((sock, reason, detail))
        self.over.set()

    def start(self, *hosts: str, seconds: float = PATIENCE, done: Done | None = None) -> Race:
        host = self.host
        run = Race(
            host.pump,
            host.deadlines,
            list(hosts),
            self.port,
            seconds,
            None,
            self.own,
            2,
            done or self.done,
            self.lost.append,
        )
        run.start()
        return run

    async def run(self, *hosts: str, seconds: float = PATIENCE) -> tuple[str | None, CloseReason, str]:
        """Who won, and what was said."""
        self.start(*hosts, seconds=seconds)
        await self.over.wait()
        [(sock, reason, detail)] = self.ended
        if sock is None:
            return None, reason, detail
        winner = sock.getpeername()[0]
        sock.close()
        return winner, reason, detail


@pytest.fixture
async def track() -> AsyncIterator[Track]:
    """Checks at the end that no descriptor is left, neither open nor in the pump."""
    before, host = open_fds(), Host()
    with ExitStack() as stack:
        async with running(host):
            yield Track(host, stack)
            host.pump.settle()
            host.check_empty()
    assert not fds_since(before)


async def test_one_address(track: Track) -> None:
    assert await track.run(ALIVE) == (ALIVE, CloseReason.FINISHED, "")
    assert track.lost == []


async def test_a_descriptor_s_number_is_not_used_again_before_the_turn_ends(track: Track) -> None:
    """Or an event of the connection that was given up would count for the next one: it would be "connected" to a
    service that is silent.
    """
    following: list[Race] = []

    def won(sock: LocalSocket | None, reason: CloseReason, detail: str) -> None:
        assert sock is not None
        sock.close()
        for other in together:
            other.cancel()
        following.extend(track.start(SILENT) for _ in together)

    together = [track.start(ALIVE, done=won) for _ in range(4)]  # the events come in one turn
    await until(lambda: following, "the next connections")
    beat = Heartbeat(track.host.pump)
    await beat.beat()
    beat.close()
    assert track.ended == []
    for run in following:
        run.cancel()


@pytest.mark.failure("28")
async def test_the_winner_stays_entered_as_our_own_and_nobody_else(track: Track) -> None:
    run = track.start(SILENT, REFUSES, ALIVE)
    await track.over.wait()
    [(sock, _, _)] = track.ended
    assert sock is not None
    assert (track.own.after(sock.getsockname()), len(track.own)) == (3, 1)
    assert run.source == sock.getsockname()
    sock.close()


@pytest.mark.failure("29")
@pytest.mark.parametrize(
    ("hosts", "lost"),
    [
        ([SILENT, ALIVE], [SILENT]),
        ([REFUSES, ALIVE], [REFUSES]),
        ([SILENT, REFUSES, ALIVE], [SILENT, REFUSES]),
        ([REFUSES, SILENT, ALIVE], [SILENT, REFUSES]),
        ([SILENT, SILENT, SILENT, ALIVE], [SILENT]),
        (["::1", ALIVE], ["::1"]),
    ],
    ids=str,
)
async def test_the_last_one_is_alive(track: Track, hosts: list[str], lost: list[str]) -> None:
    assert await track.run(*hosts) == (ALIVE, CloseReason.FINISHED, "")
    assert set(track.lost) == set(lost)


@pytest.mark.failure("29")
async def test_each_has_its_share_of_a_short_time(track: Track) -> None:
    """However little it is: with a delay of 250 ms only the first would be tried."""
    run = track.start(SILENT, SILENT, SILENT, SILENT, seconds=0.2)
    await until(lambda: len(run._runners) == 4 or bool(track.ended), "all are under way")
    assert run._delay == 0.05
    await track.over.wait()
    [(_, reason, detail)] = track.ended
    assert reason is CloseReason.CONNECT_TIMEOUT
    assert detail.startswith("no answer in 0.2 s from 127.0.0.2")


@pytest.mark.failure("29")
async def test_a_slow_first_one_may_still_win(track: Track, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silent is not dead: it is not given up when the next one is tried."""
    monkeypatch.setattr(race, "DELAY", 0.0)
    run = track.start(SILENT, SILENT)
    await until(lambda: len(run._runners) == 2, "the second one is under way beside the first")

    def room() -> bool:
        with suppress(BlockingIOError):
            while True:
                track.silent.accept()[0].close()
        return track.over.is_set()

    await until(room, "the kernel has sent SYN again, and there was room")
    [(sock, reason, _)] = track.ended
    assert reason is CloseReason.FINISHED
    assert sock is not None
    sock.close()


async def test_nobody_is_left(track: Track) -> None:
    assert await track.run(REFUSES, "127.0.0.5") == (
        None,
        CloseReason.CONNECT_FAILED,
        "127.0.0.3: Connection refused; 127.0.0.5: Connection refused",
    )
    assert track.lost == [REFUSES, "127.0.0.5"]


async def test_silence(track: Track) -> None:
    assert await track.run(SILENT, seconds=0.05) == (None, CloseReason.CONNECT_TIMEOUT, "no answer in 0.05 s")


async def test_silence_and_refusal(track: Track) -> None:
    assert await track.run(REFUSES, SILENT, seconds=0.05) == (
        None,
        CloseReason.CONNECT_TIMEOUT,
        "no answer in 0.05 s from 127.0.0.2; 127.0.0.3: Connection refused",
    )


async def test_giving_up_leaves_nothing_and_tells_nobody(track: Track) -> None:
    run = track.start(SILENT, SILENT, ALIVE)
    assert len(track.own)
    run.cancel()
    run.cancel()
    assert track.ended == []
    assert not len(track.own)


async def test_only_so_many_addresses_are_tried(track: Track) -> None:
    hosts = [f"127.0.1.{number}" for number in range(race.MOST_ADDRESSES)]
    winner, reason, _ = await track.run(*hosts, ALIVE)
    assert (winner, reason) == (None, CloseReason.CONNECT_FAILED)
    assert len(track.lost) == race.MOST_ADDRESSES


async def ending(host: Host, address: str, port: int, lost: list[str]) -> tuple[LocalSocket | None, CloseReason, str]:
    """What a race for one address comes to."""
    over, ended = trio.Event(), list[tuple[LocalSocket | None, CloseReason, str]]()

    def done(sock: LocalSocket | None, reason: CloseReason, detail: str) -> None:
        ended.append((sock, reason, detail))
        over.set()

    own = OwnConnections()
    Race(host.pump, host.deadlines, [address], port, PATIENCE, None, own, 0, done, lost.append).start()
    await over.wait()
    return ended[0]


@pytest.mark.netns
@pytest.mark.failure("29")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_service_that_is_down_is_not_reached_by_connecting_to_oneself(host: str) -> None:
    """Its port is the only one that there is to come from. Afterwards the service gets it."""

    async def main() -> str:
        pump = Host()
        async with running(pump):
            sock, reason, detail = await ending(pump, host, 40000, [])
            assert (sock, reason) == (None, CloseReason.CONNECT_FAILED)
            socket.create_server((host, 40000), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
            return detail

    said = in_own_network(lambda: trio.run(main), settings={"ipv4/ip_local_port_range": "40000 40000"})
    assert said == "nobody listens: the connection had met itself"


@pytest.mark.netns
@pytest.mark.failure("29")
def test_a_shortage_of_ports_has_a_reason_of_its_own_and_no_address_is_to_blame() -> None:
    async def main() -> tuple[CloseReason, str, list[str]]:
        lost: list[str] = []
        held: list[LocalSocket] = []
        host = Host()
        async with running(host):
            with socket.create_server(("10.9.0.1", 8080)):
                while True:
                    sock, reason, detail = await ending(host, "10.9.0.1", 8080, lost)
                    if sock is None:
                        break
                    held.append(sock)
        for sock in held:
            sock.close()
        return reason, detail, lost

    settings = {"ipv4/ip_local_port_range": "40000 40007"}
    found = in_own_network(lambda: trio.run(main), "ip address add 10.9.0.1/32 dev lo", settings=settings)
    assert found == (
        CloseReason.LOCAL_SHORTAGE,
        "this host has no source port left towards 10.9.0.1:8080",
        [],
    )
