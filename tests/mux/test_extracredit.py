from __future__ import annotations

import pytest

from proxy.mux.extracredit import FACTOR, FAST, LARGEST, MOST_STREAMS, PROVEN, ExtraCredit
from proxy.mux.stream import Stream, StreamState

KIB = 1024
CREDIT = 256 * KIB
NOON = 43_200.0


class Mover:
    """A stream that uses half of its usual credit, and is granted more, again and again."""

    def __init__(self, extra_credit: ExtraCredit, received: int = PROVEN) -> None:
        self.stream = Stream(1, StreamState.OPEN, CREDIT, CREDIT)
        self.stream.granted += received
        self.now = NOON
        self._loans = extra_credit
        self.move(seconds=1.0)

    def move(self, seconds: float, buffered: int = 0) -> int:
        """What it may have after it has used all but half of its usual credit in so many seconds."""
        stream = self.stream
        stream.allow = CREDIT // 2 - buffered
        self.now += seconds
        credit = self._loans.credit(stream, buffered, self.now)
        stream.allow = credit - buffered
        return credit


def test_a_fast_stream_is_lent_credit_for_as_long_as_it_is_fast() -> None:
    mover = Mover(ExtraCredit(CREDIT))
    assert mover.move(CREDIT / 2 / FAST * 0.99) == FACTOR * CREDIT
    used = FACTOR * CREDIT - CREDIT / 2
    assert mover.move(used / FAST * 0.99) == FACTOR * CREDIT
    assert mover.move(used / FAST * 1.01) == CREDIT
    assert mover.move(CREDIT / 2 / FAST * 0.99) == FACTOR * CREDIT


@pytest.mark.parametrize("seconds", [CREDIT / 2 / FAST * 1.01, 1.0, 0.0, -1.0], ids=["slower", "slow", "none", "back"])
def test_a_stream_that_is_not_seen_to_be_fast_is_lent_nothing(seconds: float) -> None:
    assert Mover(ExtraCredit(CREDIT)).move(seconds) == CREDIT


def test_a_stream_has_to_prove_itself() -> None:
    """What buffers take on the way to a reader that stopped is fast, too."""
    mover = Mover(ExtraCredit(CREDIT), received=PROVEN - CREDIT - 1)
    assert mover.move(1e-6) == CREDIT


def test_a_reader_that_does_not_take_all_is_lent_nothing() -> None:
    mover = Mover(ExtraCredit(CREDIT))
    assert mover.move(1e-6, buffered=1) == CREDIT
    assert mover.move(1e-6) == FACTOR * CREDIT
    assert mover.move(1e-6, buffered=1) == CREDIT


def test_so_many_at_a_time() -> None:
    extra_credit = ExtraCredit(CREDIT)
    movers = [Mover(extra_credit) for _ in range(MOST_STREAMS + 2)]
    assert [mover.move(1e-6) for mover in movers] == MOST_STREAMS * [FACTOR * CREDIT] + 2 * [CREDIT]
    extra_credit.end(movers[0].stream)
    movers[1].move(1.0)
    assert [mover.move(1e-6) for mover in movers[MOST_STREAMS:]] == 2 * [FACTOR * CREDIT]
    extra_credit.end(movers[0].stream)  # it had none any more


def test_no_loans() -> None:
    extra_credit = ExtraCredit(CREDIT)
    extra_credit.most = 0
    assert Mover(extra_credit).move(1e-6) == CREDIT


@pytest.mark.parametrize(
    ("credit", "larger"),
    [(16 * KIB, FACTOR * 16 * KIB), (CREDIT, FACTOR * CREDIT), (2 * CREDIT, LARGEST), (4 * LARGEST, 4 * LARGEST)],
)
def test_how_much(credit: int, larger: int) -> None:
    assert ExtraCredit(credit).larger == larger
