"""Which streams are picked for histograms, and for how many each stands."""

from __future__ import annotations

import pytest

from control.base.exposition import OTHER
from proxy.errors import CloseReason
from proxy.pump.seriesbudget import SeriesBudget
from proxy.pump.streamcounts import SAMPLES, STREAM_SERIES, StreamCounts, StreamSampler


def run(sampler: StreamSampler, times: list[float]) -> tuple[int, int]:
    """How many were picked, and for how many they stand."""
    picked = weight = 0
    for now in times:
        sampler.left -= 1
        if not sampler.left:
            weight += sampler.picked(now)
            picked += 1
    return picked, weight


def test_each_while_there_are_few() -> None:
    assert run(StreamSampler(), [number / 500 for number in range(2000)]) == (2000, 2000)


@pytest.mark.parametrize("rate", [3_000, 20_000, 100_000])
def test_about_a_thousand_a_second_of_a_crowd(rate: int) -> None:
    sampler = StreamSampler()
    run(sampler, [number / rate for number in range(2 * rate)])
    picked, weight = run(sampler, [2 + number / rate for number in range(4 * rate)])
    assert 4 * SAMPLES * 0.4 <= picked <= 4 * SAMPLES * 1.6
    assert weight == pytest.approx(4 * rate, rel=0.05)


def test_a_share_is_a_share() -> None:
    picked, weight = run(StreamSampler(0.01), [0.0] * 5000)
    assert (picked, weight) == (50, 5000)


def test_streams_that_are_too_many_are_counted_together() -> None:
    counts = StreamCounts(SeriesBudget(2 * STREAM_SERIES))
    for name in "abc":
        counts.stream(name, "peer", "inbound").ended[CloseReason.FINISHED] += 1
    counts.stream("d", "", "local").retried(CloseReason.OVERLOADED)
    keys = [("a", "peer", "inbound"), ("b", "peer", "inbound"), (OTHER, OTHER, "inbound"), (OTHER, "", "local")]
    assert list(counts.streams) == keys
    assert counts.streams[keys[3]].retries == {CloseReason.OVERLOADED: 1}
