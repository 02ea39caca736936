"""Two local sockets joined: bytes, ends, aborts, back-pressure."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from itertools import product
from random import Random
from time import monotonic

import pytest
import trio

from proxy.errors import CloseReason
from proxy.pump.splice import CHUNK, Splice
from proxy.pump.streamlog import NEVER
from tests.pump.rig import KINDS, End, Host, Kind, proxied, running, until
from tests.tools.sockets import fds_since, open_fds

BOTH = list(product(KINDS, KINDS))
MEMORY = 1 << 20


class Bench:
    def __init__(self, host: Host) -> None:
        self.host = host
        self.sockets: list[socket.socket] = []

    def splice(self, kind: Kind = "unix", to: Kind = "unix") -> Joined:
        return Joined(self, kind, to)


class Joined:
    """A splice and the test's two ends."""

    def __init__(self, bench: Bench, kind: Kind, to: Kind) -> None:
        ours, self.caller = proxied(kind)
        theirs, self.service = proxied(to)
        bench.sockets += (ours, theirs, self.caller.raw, self.service.raw)
        self.reasons: list[CloseReason] = []
        self.over = trio.Event()
        self.splice = Splice(bench.host.pump, ours, theirs, self._ended)
        self.splice.start()

    def _ended(self, reason: CloseReason) -> None:
        self.reasons.append(reason)
        self.over.set()

    async def ended(self) -> CloseReason:
        await self.over.wait()
        [reason] = self.reasons
        return reason

    def ends(self, closer: str) -> tuple[End, End]:
        return (self.caller, self.service) if closer == "caller" else (self.service, self.caller)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """Checks at the end that nothing is left."""
    before, host = open_fds(), Host(memory=MEMORY)
    async with running(host):
        bench = Bench(host)
        yield bench
        host.pump.settle()
        host.check_empty()
    for sock in bench.sockets:
        sock.close()
    assert not fds_since(before)


@pytest.mark.parametrize(("kind", "to"), BOTH)
async def test_a_conversation_and_its_end(bench: Bench, kind: Kind, to: Kind) -> None:
    joined = bench.splice(kind, to)
    await joined.service.send(b"speaks first")
    assert await joined.caller.read(12) == b"speaks first"
    await joined.caller.send(b"request")
    assert await joined.service.read(7) == b"request"
    joined.caller.finish()
    assert await joined.service.rest() == (b"", False)
    await joined.service.send(b"answer")
    joined.service.close()
    assert await joined.caller.rest() == (b"answer", False)
    assert await joined.ended() is CloseReason.FINISHED
    assert (joined.splice.caller.received, joined.splice.service.received) == (7, 18)


@pytest.mark.failure(2)
@pytest.mark.parametrize("closer", ["caller", "service"])
@pytest.mark.parametrize(("kind", "to"), BOTH)
async def test_half_close_travels_behind_its_bytes_and_the_other_direction_goes_on(
    bench: Bench, kind: Kind, to: Kind, closer: str
) -> None:
    joined = bench.splice(kind, to)
    one, other = joined.ends(closer)
    payload = bytes(range(256)) * 4096
    async with trio.open_nursery() as nursery:

        async def speak() -> None:
            await one.send(payload)
            one.finish()

        nursery.start_soon(speak)
        assert await other.rest() == (payload, False)
    for _ in range(3):
        await other.send(b"still speaking")
        assert await one.read(14) == b"still speaking"
    other.finish()
    assert await one.rest() == (b"", False)
    assert await joined.ended() is CloseReason.FINISHED


@pytest.mark.failure(3)
@pytest.mark.parametrize("closer", ["caller", "service"])
@pytest.mark.parametrize("to", KINDS)
async def test_an_abort_is_no_clean_end(bench: Bench, closer: str, to: Kind) -> None:
    kinds: tuple[Kind, Kind] = ("tcp", to) if closer == "caller" else (to, "tcp")
    joined = bench.splice(*kinds)
    one, other = joined.ends(closer)
    await one.send(b"x")
    assert await other.read(1) == b"x"
    one.abort()
    assert await joined.ended() is CloseReason.ABORTED
    # A Unix socket can say it only with bytes unread (SPEC.md).
    assert await other.rest() == (b"", to == "tcp")


@pytest.mark.failure(3)
@pytest.mark.parametrize("closer", ["caller", "service"])
async def test_a_unix_socket_closed_with_bytes_unread_is_an_abort(bench: Bench, closer: str) -> None:
    joined = bench.splice("unix", "tcp") if closer == "caller" else bench.splice("tcp", "unix")
    one, other = joined.ends(closer)
    await other.send(b"never read")
    assert await one.sock.recv(1, socket.MSG_PEEK) == b"n"
    one.close()
    assert await joined.ended() is CloseReason.ABORTED
    assert await other.rest() == (b"", True)


@pytest.mark.failure(3)
async def test_an_abort_behind_a_half_close(bench: Bench) -> None:
    """Nothing is read from a socket that has ended; its reset counts nevertheless."""
    joined = bench.splice("tcp", "tcp")
    joined.caller.finish()
    assert await joined.service.rest() == (b"", False)
    joined.caller.abort()
    assert await joined.ended() is CloseReason.ABORTED


@pytest.mark.failure(3, 20)
async def test_an_abort_while_nothing_is_read(bench: Bench) -> None:
    joined = bench.splice("tcp", "tcp")
    await until(lambda: not joined.caller.fill() and joined.splice.service.pending, "full")
    joined.caller.abort()
    assert (await joined.service.rest()).reset
    assert await joined.ended() is CloseReason.ABORTED


@pytest.mark.failure(4, 19, 20)
async def test_a_reader_that_stops_holds_back_its_writer_and_nobody_else(bench: Bench) -> None:
    stalled, other = bench.splice(), bench.splice()
    written = 0

    def full() -> bool:
        nonlocal written
        more = stalled.caller.fill()
        written += more
        return not more and bool(stalled.splice.service.pending)

    assert stalled.splice.held(monotonic()) is None
    await until(full, "full")
    cause, seconds = stalled.splice.held(monotonic()) or ("", -1.0)
    assert (cause, seconds >= 0) == ("reader", True)
    assert len(stalled.splice.service.pending) <= CHUNK
    assert bench.host.pump.budget.used == len(stalled.splice.service.pending)
    await stalled.service.send(b"the other direction")
    assert await stalled.caller.read(19) == b"the other direction"
    await other.caller.send(b"others")
    assert await other.service.read(6) == b"others"
    assert await stalled.service.read(written) == bytes(written)
    assert stalled.splice.held(monotonic()) is None
    spent = stalled.splice.stalled(monotonic())
    assert spent.reader >= seconds
    assert spent == stalled.splice.stalled(monotonic() + 60), "it is over"
    assert other.splice.stalled(monotonic()) == NEVER
    for joined in (stalled, other):
        joined.caller.finish()
        joined.service.finish()
        assert await joined.ended() is CloseReason.FINISHED


@pytest.mark.failure(19)
async def test_over_the_budget(bench: Bench) -> None:
    assert bench.host.pump.budget.take(MEMORY)
    joined = bench.splice("tcp", "unix")
    async with trio.open_nursery() as nursery:

        async def speak() -> None:
            with pytest.raises(OSError):
                while True:
                    await joined.caller.send(bytes(CHUNK))

        nursery.start_soon(speak)
        assert await joined.ended() is CloseReason.OVER_BUDGET
    assert bench.host.pump.budget.used == MEMORY
    bench.host.pump.budget.give(MEMORY)


@pytest.mark.failure(20)
@pytest.mark.parametrize("seed", range(3))
async def test_every_byte_arrives_in_order(bench: Bench, seed: int) -> None:
    random = Random(seed)

    async def write(end: End, payload: bytes, random: Random) -> None:
        view = memoryview(payload)
        while view:
            size = random.choice((1, 100, 5000, 100_000))
            await end.send(view[:size])
            view = view[size:]
        end.finish()

    async def read(end: End, expected: bytes, random: Random) -> None:
        received = bytearray()
        while piece := await end.sock.recv(random.choice((1, 1000, 100_000))):
            received += piece
            if random.random() < 0.1:
                await trio.sleep(0.001)
        assert received == expected

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            joined = bench.splice(random.choice(KINDS), random.choice(KINDS))
            for closer in ("caller", "service"):
                one, other = joined.ends(closer)
                payload = random.randbytes(random.choice((0, 1, 65535, 65537, 1 << 20)))
                nursery.start_soon(write, one, payload, Random(random.random()))
                nursery.start_soon(read, other, payload, Random(random.random()))


async def test_stopped(bench: Bench) -> None:
    joined = bench.splice("tcp", "tcp")
    joined.splice.end(CloseReason.STOPPED)
    joined.splice.end(CloseReason.FINISHED)
    bench.host.pump.settle()
    assert await joined.ended() is CloseReason.STOPPED
    assert (await joined.caller.rest()).reset
    assert (await joined.service.rest()).reset


@pytest.mark.failure(18)
async def test_a_bug_costs_that_connection_only(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    victim, other = bench.splice(), bench.splice()

    def fail() -> None:
        raise RuntimeError("a bug")

    victim.splice.settle = fail  # type: ignore[method-assign]
    await victim.caller.send(b"x")
    assert await victim.ended() is CloseReason.ABORTED
    await other.caller.send(b"others")
    assert await other.service.read(6) == b"others"
    other.splice.end(CloseReason.STOPPED)


@pytest.mark.failure(1)
async def test_many_ended_in_every_way_leave_nothing(bench: Bench) -> None:
    """The fixture counts."""
    random = Random(1)
    for _ in range(300):
        joined = bench.splice(random.choice(KINDS), random.choice(KINDS))
        ends = [joined.caller, joined.service]
        random.shuffle(ends)
        if random.random() < 0.5:
            await ends[0].send(b"x" * random.randrange(1, 1000))
        for end in ends:
            random.choice((end.close, end.abort, end.close))()
        await joined.ended()


@pytest.mark.failure("21b-c")
@pytest.mark.parametrize("says", [b"", b"a word"])
@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("kind", KINDS)
async def test_whether_the_caller_has_waited_for_a_word(
    bench: Bench, kind: Kind, says: bytes, answered: bool
) -> None:
    joined = bench.splice(kind, "unix")
    if answered:
        await joined.service.send(b"welcome")
        assert await joined.caller.read(7) == b"welcome"
    await joined.caller.send(says)
    joined.caller.close()
    await until(lambda: joined.splice.caller.ended, "the caller's end")
    await joined.service.send(b"too late")
    joined.service.close()
    await joined.ended()
    assert joined.splice.caller.hasty is not answered


@pytest.mark.failure("21b-c")
@pytest.mark.parametrize(("kind", "to"), BOTH)
async def test_a_caller_that_has_only_finished_is_not_in_haste(bench: Bench, kind: Kind, to: Kind) -> None:
    joined = bench.splice(kind, to)
    await joined.caller.send(b"a question")
    joined.caller.finish()
    assert (await joined.service.rest()).received == b"a question"
    await joined.service.send(b"an answer")
    joined.service.close()
    assert (await joined.caller.rest()).received == b"an answer"
    await joined.ended()
    assert not joined.splice.caller.hasty
