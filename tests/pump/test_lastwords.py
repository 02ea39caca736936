"""Last words: what an application wrote before it closed arrives, although the other end was still writing to it.

As without a proxy: who writes to a connection that is closed at the other end is told so by an error, and can still
read what had been said before. Over a link and between two sockets of one host, with each pair of socket types.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from functools import partial
from itertools import product
from random import Random
from typing import Any

import pytest
import trio

from proxy.errors import CloseReason
from proxy.pump import lane, lastwords, splice
from proxy.pump.lastwords import LastWords, stop_hearing
from proxy.pump.splice import Splice
from tests.pump.rig import KINDS, End, Host, Kind, Rig, proxied, rig, running, until
from tests.tools.whole import whole

pytestmark = pytest.mark.failure("21a")

CREDIT = 64 * 1024
PIECE = 16 * 1024
UPLOAD = bytes(4 << 20)
"""More than all buffers and credit on the way hold."""
MINUTES = 110.0
"""Seconds for many streams one after the other, on a machine that is slow."""
SMALL_BUFFER = 32 * 1024
"""Bytes of each socket's buffers (the kernel doubles it): an answer that exceeds them all need not be megabytes."""
WAYS = ["link", "splice"]
PAIRS = list(product(KINDS, KINDS))


class Talk:
    """A connection: the end that has last words and then closes, and the other one, which writes all the time.

    Attributes:
        reasons: of the ends so far.
    """

    def __init__(self, closer: End, writer: End, over: Callable[[], bool], reasons: Callable[[], set[str]]) -> None:
        self.closer, self.writer, self.over, self.reasons = closer, writer, over, reasons

    async def speak(self, words: bytes, hear: int) -> None:
        """The closer: read a little, say the last words, and close with the rest unread."""
        if hear:
            await self.closer.read(hear)
        await self.closer.send(words)
        if self.closer.kind == "tcp":  # it drops what it has not handed over, with and without a proxy
            await until(lambda: self.closer.untaken == 0, "the proxy's kernel has the last words")
        self.closer.close()

    async def upload(self, size: int = len(UPLOAD)) -> None:
        """The writer: so many bytes, or fewer when it is told that nobody reads."""
        with suppress(BrokenPipeError, ConnectionResetError):
            await self.writer.send(UPLOAD[:size])


async def talk(joined: Rig, way: str, closer: str, kind: Kind, to: Kind, buffers: int = 0) -> Talk:
    """A caller whose socket is of one kind, a service whose socket is of the other, with `buffers` bytes if not 0."""
    if way == "link":
        stream = await joined.stream(kind, to)
        for sock in (stream.caller.raw, stream.service.raw, joined.sockets[-1], joined.handover.sockets[-2]):
            shrink(sock, buffers)
        both = stream.outbound, stream.inbound
        return Talk(
            *stream.ends(closer),
            lambda: all(record.over.is_set() for record in both),
            lambda: {record.reason.label for record in both if record.reason is not None},
        )
    ends: list[CloseReason] = []
    (ours, caller), (theirs, service) = proxied(kind), proxied(to)
    for sock in (ours, caller.raw, theirs, service.raw):
        shrink(sock, buffers)
    joined.sockets += (ours, theirs)
    joined.ends += (caller, service)
    Splice(joined.a.pump, ours, theirs, ends.append).start()
    return Talk(
        *((caller, service) if closer == "caller" else (service, caller)),
        lambda: bool(ends),
        lambda: {reason.label for reason in ends},
    )


def shrink(sock: socket.socket, size: int) -> None:
    """Have the kernel keep twice that at most, each way; 0: what it likes."""
    if size:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


@pytest.mark.parametrize("closer", ["caller", "service"])
@pytest.mark.parametrize(("kind", "to"), PAIRS)
@pytest.mark.parametrize("way", WAYS)
async def test_of_many_last_words_none_is_lost(way: str, kind: Kind, to: Kind, closer: str) -> None:
    """500 for each of caller and service. The writer reads when it has written all or been told that nobody reads."""
    random = Random(f"{way} {kind} {to} {closer}")

    async def one(talking: Talk) -> bool:
        words = random.randbytes(random.choice((1, 170, 4000, 30_000)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talking.speak, words, random.choice((0, 1, 5000)))
            await talking.upload(512 * 1024)
            received, _ = await talking.writer.rest()
        return received == words

    async with rig(credit=CREDIT, patience=MINUTES) as joined:
        await none_is_lost(whole(500, quick=100), partial(talk, joined, way, closer, kind, to), one)


@pytest.mark.parametrize("closer", ["caller", "service"])
@pytest.mark.parametrize(("kind", "to"), PAIRS)
@pytest.mark.parametrize("way", WAYS)
async def test_of_many_that_exceed_all_buffers_none_is_lost_by_a_slow_reader(
    way: str, kind: Kind, to: Kind, closer: str
) -> None:
    """500 for each of caller and service. The reader is still writing, and goes on until it is told that nobody reads,
    long after the closer has gone.
    """
    random = Random(f"{way} {kind} {to} {closer}")

    async def one(talking: Talk) -> bool:
        words = random.randbytes(held + random.randrange(PIECE, 8 * PIECE))
        received = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talking.speak, words, PIECE)
            nursery.start_soon(talking.upload)
            with suppress(ConnectionResetError):
                while piece := await talking.writer.sock.recv(random.choice((5000, PIECE, 4 * PIECE))):
                    received += piece
                    if random.random() < 0.1:
                        await trio.sleep(0.001)
        return received == words

    async with rig(credit=CREDIT, patience=MINUTES) as joined:
        start = partial(talk, joined, way, closer, kind, to, SMALL_BUFFER)
        held = await capacity(await start())
        await none_is_lost(whole(500, quick=10), start, one)


async def none_is_lost(
    rounds: int, start: Callable[[], Awaitable[Talk]], one: Callable[[Talk], Awaitable[bool]]
) -> None:
    """`one`, which says whether all last words were heard, so often, and five at a time."""
    lost, one_at_a_time = 0, trio.Lock()

    async def some(number: int) -> None:
        nonlocal lost
        for _ in range(number):
            async with one_at_a_time:
                talking = await start()
            lost += not await one(talking)
            await until(talking.over, "the end")
            talking.writer.close()

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(some, rounds // 5)
    assert lost == 0, f"{lost} of {rounds}"


async def capacity(talking: Talk) -> int:
    """Bytes that all buffers on the way hold while nobody reads."""
    held = still = 0

    def full() -> bool:
        nonlocal held, still
        held += (more := talking.closer.fill())
        still = 0 if more else still + 1
        return still >= 50

    await until(full, "full")
    talking.closer.abort()
    await talking.writer.rest()
    talking.writer.close()
    await until(talking.over, "the end")
    return held


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
async def test_a_reader_that_writes_everything_before_it_reads(way: str, kind: Kind) -> None:
    """More was said to it than its own buffers hold, so the proxies keep the rest, and it is not told before it has
    written all. They take that, for nobody.
    """
    async with rig(credit=CREDIT) as joined:
        talking = await talk(joined, way, "service", kind, "unix")
        words = bytes(range(256)) * 1024
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talking.speak, words, 1)
            await talking.upload()
            received, _ = await talking.writer.rest()
        assert received == words
        await until(talking.over, "the end")


@pytest.mark.parametrize("way", WAYS)
async def test_a_caller_that_resets_is_heard_to_the_end(way: str) -> None:
    """Nothing is read from it at that moment, because the service does not read either."""
    async with rig(credit=CREDIT) as joined:
        talking = await talk(joined, way, "caller", "tcp", "tcp")
        said = 0

        def full() -> bool:
            nonlocal said
            said += (more := talking.closer.fill())
            return not more and talking.closer.untaken > 0

        await until(full, "full")
        said -= talking.closer.untaken
        talking.closer.abort()
        received, reset = await talking.writer.rest()
        assert (len(received) >= said, reset) == (True, True)
        await until(talking.over, "the end")


# ------------------------------------------------------------------------------------------------- bounded in time


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lastwords, "PATIENCE", 1.0)
    for module in (lastwords, lane, splice):
        monkeypatch.setattr(module, "LOOK", 0.05)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
async def test_a_reader_that_takes_nothing_is_not_waited_for_for_ever(way: str, kind: Kind) -> None:
    """The closer is gone; what it said fills the buffers on the way. The fixture checks that nothing of it is left."""
    async with rig(credit=CREDIT) as joined:
        talking = await talk(joined, way, "service", kind, "unix")
        closer = talking.closer
        await talking.writer.send(b"never read")
        await closer.sock.recv(1, socket.MSG_PEEK)

        def full() -> bool:
            held = joined.a.pump.budget.used or joined.b.pump.budget.used
            return not closer.fill() and closer.untaken > 0 and held > 0

        await until(full, "full")
        closer.close()
        await until(talking.over, "given up")
        assert (await talking.writer.rest()).reset is (kind == "tcp")
        assert "unread" in talking.reasons()


@pytest.mark.usefixtures("impatient")
async def test_a_slow_reader_is_waited_for_as_long_as_it_takes_something() -> None:
    host = Host()
    async with running(host):
        ours, reader = proxied("tcp")
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        reader.raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        assert host.pump.budget.take(1 << 20)
        ends: list[CloseReason] = []
        words = LastWords(host.pump, ours, CloseReason.ABORTED, bytes(1 << 20), host.pump.budget, ends.append)
        host.pump.watch(ours.fileno(), words, 0)
        words.start()
        received = 0
        for _ in range(20):
            received += len(await reader.read(1 << 14))
            await trio.sleep(0.1)
        assert not ends
        rest, reset = await reader.rest()
        assert (received + len(rest), reset) == (1 << 20, True)
        await until(lambda: ends, "the end")
        assert ends == [CloseReason.ABORTED]
        host.check_empty()
        reader.close()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("reason", [CloseReason.FINISHED, CloseReason.ABORTED])
async def test_who_writes_and_never_reads_is_held_back_and_reset(
    reason: CloseReason, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lastwords, "MOST_DROPPED", 1 << 20)
    host = Host()
    async with running(host):
        ours, reader = proxied("tcp")
        size = 16 << 20
        assert host.pump.budget.take(size)
        ends: list[CloseReason] = []
        words = LastWords(host.pump, ours, reason, bytes(size), host.pump.budget, ends.append)
        host.pump.watch(ours.fileno(), words, 0)
        words.start()
        await until(lambda: reader.fill() == 0 and words._dropped >= 1 << 20, "no more is read from it")
        assert words._dropped < 2 << 20
        await until(lambda: ends, "given up")
        assert ends == [CloseReason.UNREAD]
        assert (await reader.rest()).reset
        host.pump.settle()
        host.check_empty()
        reader.close()


async def test_a_unix_writer_is_told_that_nobody_reads_and_sees_the_reset() -> None:
    """It waits for room in a socket that nobody reads; what it has written there was never read."""
    ours, writer = proxied("unix")
    assert writer.fill() > 0
    assert not select.select([], [writer.raw], [], 0)[1]
    stop_hearing(ours)
    assert select.select([], [writer.raw], [], 0)[1]
    with pytest.raises(BrokenPipeError):
        writer.raw.send(b"x")
    ours.send(b"last words")
    ours.close()
    assert writer.raw.recv(100) == b"last words"
    with pytest.raises(ConnectionResetError):
        writer.raw.recv(100)
    writer.close()


@pytest.mark.usefixtures("impatient")
async def test_a_clean_end_whose_last_words_are_not_read_is_said(logs: list[MutableMapping[str, Any]]) -> None:
    """The stream has ended well for everybody else: the line in the log is all there is."""
    async with rig(credit=CREDIT) as joined:
        talking = await talk(joined, "link", "service", "tcp", "unix")
        talking.writer.raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await talking.closer.send(UPLOAD[:CREDIT])  # more than its kernel takes, less than the proxy's does
        talking.closer.close()
        await until(talking.over, "the end")
        assert talking.reasons() == {"finished"}
        said: list[MutableMapping[str, Any]] = []

        def told() -> bool:
            with suppress(ConnectionError):
                talking.writer.fill()
            said[:] = (entry for entry in logs if entry["event"] == "last words unread")
            return bool(said)

        await until(told, "it is said")
        [line] = said
        assert (line["log_level"], line["service"], line["direction"]) == ("warning", "test", "outbound")


# ----------------------------------------------------------------------- an application that shuts down reading alone


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("closer", ["caller", "service"])
@pytest.mark.parametrize("to", KINDS)
@pytest.mark.parametrize("way", WAYS)
async def test_who_reads_no_more_writes_for_as_long_as_it_likes(
    way: str, to: Kind, closer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SHUT_RD of a Unix application makes writes to it fail, as if it had closed. It has not, and neither time that
    last words have is its: a reader holds it back throughout.
    """
    monkeypatch.setattr(lastwords, "PATIENCE", 0.1)
    monkeypatch.setattr(lastwords, "LONGEST", 0.2)
    pair: tuple[Kind, Kind] = ("unix", to) if closer == "caller" else (to, "unix")
    async with rig(credit=CREDIT) as joined:
        talking = await talk(joined, way, closer, *pair, SMALL_BUFFER)
        talking.closer.raw.shutdown(socket.SHUT_RD)
        words = Random(way).randbytes(2 << 20)

        async def emit() -> None:
            await talking.closer.send(words)
            talking.closer.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(emit)
            nursery.start_soon(talking.upload)
            await trio.sleep(0.5)  # longer than either: a reader that takes its time
            received, _ = await talking.writer.rest()
        assert received == words
        talking.writer.close()
        await until(talking.over, "the end")
        assert "aborted" in talking.reasons(), "what the other one wrote was lost, and it hears of that"


@pytest.mark.parametrize("closer", ["caller", "service"])
@pytest.mark.parametrize("to", KINDS)
@pytest.mark.parametrize("way", WAYS)
async def test_who_reads_no_more_and_is_not_written_to_ends_cleanly(way: str, to: Kind, closer: str) -> None:
    pair: tuple[Kind, Kind] = ("unix", to) if closer == "caller" else (to, "unix")
    async with rig(credit=CREDIT) as joined:
        talking = await talk(joined, way, closer, *pair)
        talking.closer.raw.shutdown(socket.SHUT_RD)
        await talking.closer.send(UPLOAD[:PIECE])
        assert await talking.writer.read(PIECE) == UPLOAD[:PIECE]
        await talking.closer.send(b"the end")
        talking.closer.close()
        assert await talking.writer.rest() == (b"the end", False)
        talking.writer.close()
        await until(talking.over, "the end")
        assert talking.reasons() == {"finished"}


# ------------------------------------------------------------------------------------------------- clean ends


@pytest.mark.parametrize("way", WAYS)
async def test_a_clean_end_stays_one_for_a_tcp_caller_that_still_writes(way: str) -> None:
    """A Unix service has read all that had come when it closes; more comes, and lies unread in the proxy's socket."""
    lost = 0
    async with rig(credit=CREDIT, patience=MINUTES) as joined:
        for number in range(whole(200, quick=50)):
            talking = await talk(joined, way, "service", "tcp", "unix")
            words = bytes([number]) * (CREDIT + number)
            await talking.writer.send(b"x")
            assert await talking.closer.read(1) == b"x"
            await talking.closer.send(words)
            talking.closer.close()
            await talking.upload()
            received, _ = await talking.writer.rest()
            lost += received != words
            talking.writer.close()
            await until(talking.over, "the end")
    assert lost == 0
