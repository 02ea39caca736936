"""One stream tells for as many as it stands for."""

from __future__ import annotations

from control.base.histogram import Histogram
from proxy.pump.streamtiming import FirstByteTiming, StreamTiming


def test_it_is_counted_as_often_as_it_stands_for() -> None:
    opened, first = Histogram([1, 10]), Histogram([1, 10])
    timing = StreamTiming(3, 100, opened, first)
    timing.opened(0.5)
    timing.first_byte(105)
    assert (opened.counts, opened.total) == ([3, 0, 0], 1.5)
    assert (first.counts, first.total) == ([0, 3, 0], 15)


def test_the_first_byte_is_remembered_and_passed_on() -> None:
    opened, first = Histogram([1, 10]), Histogram([1, 10])
    timing = FirstByteTiming(StreamTiming(1, 100, opened, first))
    timing.opened(0.5)
    assert timing.at is None
    timing.first_byte(105)
    assert (timing.at, opened.total, first.total) == (105, 0.5, 5)
    alone = FirstByteTiming(None)
    alone.opened(0.5)
    alone.first_byte(7)
    assert alone.at == 7
