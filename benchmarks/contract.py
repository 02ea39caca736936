"""The performance that Hostlane promises, each line with what this run measured.

All ratios are medians over the rounds of the ratio within a round (stats.paired_ratio). Trials of the stalled reader
count one by one.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks.measures.stalled import NAMES as STALLED
from benchmarks.measures.storm import NAME
from benchmarks.paths.hostlane import MAX_LINKS
from benchmarks.results import Results

US, US_MTLS = "hostlane", "hostlane-mtls"
PROXY_PEERS = ("haproxy", "envoy-tcp", "envoy-h2")
STALL_FACTOR = 1.5

Measured = tuple[float, str] | None
"""The figure that is compared, and words on it; None when this run did not measure it."""


@dataclass(frozen=True)
class Promise:
    text: str
    limit: float
    at_least: bool
    measure: Callable[[Results], Measured]


@dataclass(frozen=True)
class Verdict:
    promise: str
    measured: str
    met: bool | None
    """None: not measured in this run."""


def verdicts(results: Results) -> list[Verdict]:
    return [_judge(promise, results) for promise in PROMISES]


def _judge(promise: Promise, results: Results) -> Verdict:
    measured = promise.measure(results)
    sign = "≥" if promise.at_least else "≤"
    text = f"{promise.text} {sign} {promise.limit:g}"
    if measured is None:
        return Verdict(text, "not measured", None)
    compare = operator.ge if promise.at_least else operator.le
    return Verdict(text, measured[1], compare(measured[0], promise.limit))


def _to_haproxy(measure: str, cell: str, metric: str) -> Callable[[Results], Measured]:
    def ratio(results: Results) -> Measured:
        value = results.ratio(measure, cell, US, metric)
        return None if value is None else (value, f"{value:.2f}")

    return ratio


def _to_best_proxy(measure: str, cell: str, metric: str) -> Callable[[Results], Measured]:
    """Against the proxy peer with the smallest median."""
    return _to_best(min, US, PROXY_PEERS, (measure, cell, metric), " µs")


def _to_better_mtls(measure: str, cell: str, *peers: str) -> Callable[[Results], Measured]:
    """Rate with mutual TLS, against the peer with the greatest one."""
    return _to_best(max, US_MTLS, peers, (measure, cell, "rate"), "/s")


def _to_best(
    choose: Callable[[Iterable[tuple[float, str]]], tuple[float, str]],
    us: str,
    peers: Sequence[str],
    what: tuple[str, str, str],
    unit: str,
) -> Callable[[Results], Measured]:
    measure, cell, metric = what

    def ratio(results: Results) -> Measured:
        medians = [(results.median(measure, cell, peer, metric), peer) for peer in peers]
        known = [(value, peer) for value, peer in medians if value is not None]
        if not known:
            return None
        figure, best = choose(known)
        value = results.ratio(measure, cell, us, metric, to=best)
        return None if value is None else (value, f"{value:.2f} (best: {best}, {figure:,.0f}{unit})")

    return ratio


def _bad_trials(kind: str) -> Callable[[Results], Measured]:
    """Trials in which p99 rose above STALL_FACTOR times what it was without, or a message was stuck, or that failed."""

    def count(results: Results) -> Measured:
        samples = [s for cell in STALLED for s in results.of("stalled", cell, US)]
        if not samples:
            return None
        bad = [s for s in samples if s.error or s.values[f"{kind}_ratio"] > STALL_FACTOR or s.values[f"{kind}_stuck"]]
        worst = max((s.values[f"{kind}_ratio"] for s in samples if not s.error), default=float("inf"))
        return len(bad), f"{len(bad)} of {len(samples)} trials; worst ratio {worst:.2f}"

    return count


def _storm(results: Results) -> Measured:
    value = results.median("storm", NAME, US, "storm_ratio")
    return None if value is None else (value, f"{value:.2f}")


def _links(results: Results) -> Measured:
    value = results.median("links", "128 connections", US, "links")
    return None if value is None else (value, f"{value:.0f}")


PROMISES = [
    Promise(
        "64 B persistent, 128 connections: round trips/s, × HAProxy",
        1.2,
        True,
        _to_haproxy("persistent", "64 B × 128", "rate"),
    ),
    Promise(
        "64 B persistent, 1,024 connections: round trips/s, × HAProxy",
        1.6,
        True,
        _to_haproxy("persistent", "64 B × 1024", "rate"),
    ),
    Promise(
        "64 B persistent, 16 connections: round trips/s, × HAProxy",
        0.6,
        True,
        _to_haproxy("persistent", "64 B × 16", "rate"),
    ),
    Promise(
        "64 B persistent, 128 connections: CPU per round trip, × HAProxy",
        0.65,
        False,
        _to_haproxy("persistent", "64 B × 128", "cpu_us"),
    ),
    Promise(
        "connect per request, 16 at a time: requests/s, × HAProxy",
        1.3,
        True,
        _to_haproxy("connect", "64 B × 16", "rate"),
    ),
    Promise(
        "connect per request, 128 at a time: requests/s, × HAProxy",
        1.3,
        True,
        _to_haproxy("connect", "64 B × 128", "rate"),
    ),
    Promise("one bulk stream: MB/s, × HAProxy", 0.8, True, _to_haproxy("bulk", "A to B", "mb_per_s")),
    Promise("beside a bulk stream: p50, × best proxy peer", 1.0, False, _to_best_proxy("mixed", "A to B", "p50_us")),
    Promise("beside a bulk stream: p99, × best proxy peer", 1.0, False, _to_best_proxy("mixed", "A to B", "p99_us")),
    Promise(
        "beside a bulk stream, 1 Gbit/s cable: p50, × best proxy peer",
        0.5,
        False,
        _to_best_proxy("shaped", "A to B", "p50_us"),
    ),
    Promise(
        f"beside a stalled stream: trials with p99 over {STALL_FACTOR} ×, or stuck", 0, False, _bad_trials("beside")
    ),
    Promise(
        f"the same after an aborted bulk stream: trials with p99 over {STALL_FACTOR} ×, or stuck",
        0,
        False,
        _bad_trials("after_abort"),
    ),
    Promise("beside a storm of connects: p50, × beside the same on a service without a proxy", 3.0, False, _storm),
    Promise("TCP links between the hosts with 128 connections", MAX_LINKS, False, _links),
    Promise(
        "mTLS, 64 B persistent, 128 connections: round trips/s, × the better of HAProxy and Envoy with mTLS",
        1.2,
        True,
        _to_better_mtls("persistent", "64 B × 128", "haproxy-mtls", "envoy-h2-mtls"),
    ),
    Promise(
        "mTLS, connect per request, 16 at a time: requests/s, × Envoy over HTTP/2 with mTLS",
        2.0,
        True,
        _to_better_mtls("connect", "64 B × 16", "envoy-h2-mtls"),
    ),
    Promise(
        "mTLS, connect per request, 16 at a time: requests/s, × HAProxy with mTLS",
        8.0,
        True,
        _to_better_mtls("connect", "64 B × 16", "haproxy-mtls"),
    ),
]
