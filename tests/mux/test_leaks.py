"""Millions of frames between two sessions leave nothing: no object, no byte, no reference."""

from __future__ import annotations

from itertools import cycle

import pytest

from proxy.errors import CloseReason
from proxy.mux.session import SessionSettings
from tests.mux.pair import Pair, Side
from tests.tools.leaks import SHARED, grown, held
from tests.tools.whole import whole

STREAMS = whole(1_000_000, quick=1_000)
FRAMES = 10
"""At least, for each stream."""
BATCH = 50
FEW = STREAMS // 5
"""Growth that is no leak: a leak is one for each stream, or one for each frame. What the interpreter itself keeps comes
and goes."""
BYTES = 1 << 18
"""The same for bytes, beside a fifth of a byte for each stream: the C library's own, and the slab in use."""


def conversation(pair: Pair, number: int) -> int:
    """BATCH streams that end in one of four ways, and now and then another link. Returns how many frames they took;
    those that a link brings twice count once.
    """
    a, b = pair.a.session, pair.b.session
    mine = [pair.a.open() for _ in range(BATCH)]
    frames = BATCH
    for stream in mine:
        frames += pair.a.send(stream, b"question") > 0
    pair.cross()
    theirs = [stream for stream, _ in pair.b.calls]
    assert len(theirs) == BATCH
    for position, stream in enumerate(theirs):
        if position % 10 == 9:
            b.refuse(stream, CloseReason.CONNECT_FAILED)
            frames += 1
            continue
        b.accept(stream)
        frames += 1
        for _ in range(5):
            frames += pair.b.send(stream, b"answer" * 40) > 0
    pair.cross()
    if number % 7 == 0:
        pair.relink()
        pair.cross()
    for position, (one, other) in enumerate(zip(mine, theirs, strict=True)):
        if position % 10 == 9:
            continue
        pair.a.read(one)
        pair.b.read(other)
        frames += 1  # CREDIT for the answer
        way = position % 3
        if way == 0:
            a.reset(one, CloseReason.ABORTED)
            frames += 1
        elif way == 1:
            a.fin(one)
            b.fin(other)
            frames += 2
        else:
            frames += pair.a.send(one, b"more") > 0
            b.fin(other)
            a.fin(one)
            frames += 2
    a.ping(number)
    pair.acknowledge()
    pair.acknowledge()
    for side in (pair.a, pair.b):
        forget(side)
    return frames + 4


def forget(side: Side) -> None:
    """The test's own books."""
    side.calls.clear()
    side.closed.clear()
    side.pongs.clear()


@pytest.mark.timeout(3600)
@pytest.mark.failure(1)
def test_streams_and_their_frames_leave_nothing() -> None:
    settings = SessionSettings(stream_credit=2000)
    pair = Pair(a=settings, b=settings)
    numbers = cycle(range(1000))
    for _ in range(20):
        conversation(pair, next(numbers))
    before, frames = held(SHARED), 0
    for _ in range(STREAMS // BATCH):
        frames += conversation(pair, next(numbers))
    after = held(SHARED)
    assert frames >= FRAMES * STREAMS
    for side in (pair.a, pair.b):
        session = side.session
        assert not session.streams
        assert not session.lingering
        assert not session.extra_credit.extended
        assert side.slabs.in_use == 1
        assert session.out.unacked < 100
    more = grown(before, after, SHARED)
    allowed = {"bytes": BYTES + FEW, "descriptors": 0}
    assert not {what: count for what, count in more.items() if count > allowed.get(what, FEW)}
