"""The performance that Hostlane promises, each line with what this run measured.

All ratios are medians over the rounds of the ratio within a round (stats.paired_ratio). Trials of the stalled reader
count one by one. Where other builds were measured (--program), each line says what they have, too, and some lines
compare with them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.measures import paced
from benchmarks.measures.messages import name
from benchmarks.measures.stalled import NAMES as STALLED
from benchmarks.measures.storm import NAME
from benchmarks.options import HOSTLANE as US
from benchmarks.options import HOSTLANE_MTLS as US_MTLS
from benchmarks.paths.hostlane import MAX_LINKS
from benchmarks.results import Results

US_NO_POLL = "hostlane-no-poll"
PROXY_PEERS = ("haproxy", "envoy-tcp", "envoy-h2")
CALLED = {
    "direct": "direct",
    "bridge": "bridge + NAT",
    "haproxy": "HAProxy",
    "envoy-tcp": "Envoy tcp_proxy",
    "haproxy-mtls": "HAProxy with mTLS",
    "envoy-h2-mtls": "Envoy over HTTP/2 with mTLS",
}
STALL_FACTOR = 1.5
AS_FAST = 0.97
"""Of another build's rate: what two runs of the same build differ by."""
FULL_SPEED = (("persistent", "rate"), ("connect", "rate"), ("connect-after-bulk", "rate"), ("bulk", "mb_per_s"))

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


def _ratio(measure: str, cell: str, metric: str, to: str, us: str = US) -> Callable[[Results], Measured]:
    def ratio(results: Results) -> Measured:
        value = results.ratio(measure, cell, us, metric, to=to)
        if value is None:
            return None
        others = ((name, results.ratio(measure, cell, name, metric, to=to)) for name in results.others(us))
        said = "; ".join(f"{name}: {other:.2f}" for name, other in others if other is not None)
        return value, f"{value:.2f}" + (f" ({said})" if said else "")

    return ratio


def _to_best_proxy(measure: str, cell: str, metric: str) -> Callable[[Results], Measured]:
    """Against the proxy peer with the smallest median."""

    def ratio(results: Results) -> Measured:
        medians = [(results.median(measure, cell, peer, metric), peer) for peer in PROXY_PEERS]
        known = [(value, peer) for value, peer in medians if value is not None]
        if not known:
            return None
        figure, best = min(known)
        value = results.ratio(measure, cell, US, metric, to=best)
        return None if value is None else (value, f"{value:.2f} (best: {best}, {figure:,.0f} µs)")

    return ratio


Compared = Iterator[tuple[str, str, str, str]]
"""Measure, cell, metric, and which path of ours."""


def _to_other_builds(cells: Callable[[Results], Compared], at_least: bool) -> Callable[[Results], Measured]:
    """The worst of some cells beside the other builds."""

    def ratio(results: Results) -> Measured:
        found = [
            (value, f"{value:.2f} ({measure} {cell}, {us} to {other})")
            for measure, cell, metric, us in cells(results)
            for other in results.others(us)
            if (value := results.ratio(measure, cell, us, metric, to=other)) is not None
        ]
        return (min if at_least else max)(found) if found else None

    return ratio


def _full_speed(results: Results) -> Compared:
    for measure, metric in FULL_SPEED:
        for cell in results.cells(measure):
            for us in (US, US_MTLS):
                yield measure, cell, metric, us


def _beside_bulk(results: Results) -> Compared:
    for cell in results.cells("mixed"):
        yield "mixed", cell, "p50_us", US


def _persistent_4(results: Results) -> Compared:
    yield "persistent", name(64, 4), "rate", US


def _failed_calls(results: Results) -> Measured:
    """Calls that were refused or failed, and cells that failed as a whole, in whatever was measured."""
    ours = [sample for sample in results.samples if sample.path in (US, US_MTLS, US_NO_POLL)]
    if not ours:
        return None
    calls = sum(int(sample.values.get("errors", 0)) for sample in ours)
    cells = sum(sample.error is not None for sample in ours)
    return calls + cells, f"{calls} calls, {cells} of {len(ours)} samples"


def _idle_cpu(results: Results) -> Measured:
    value = results.median("paced", paced.name(None), US, "core_percent")
    return None if value is None else (round(value, 1), f"{value:.2f}")


def _polling(rate: int) -> Callable[[Results], Measured]:
    """CPU time of a proxy more than without busy polling, % of a core."""

    def difference(results: Results) -> Measured:
        cell = paced.name(rate)
        value = results.difference("paced", cell, US, "core_percent", to=US_NO_POLL)
        with_polling, without = (results.median("paced", cell, path, "core_percent") for path in (US, US_NO_POLL))
        if value is None or with_polling is None or without is None:
            return None
        return value, f"{value:.1f} ({with_polling:.1f} and {without:.1f})"

    return difference


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


Line = tuple[str, float, str]
"""Metric, limit, and which path the ratio is to."""


def _lines(what: str, measure: str, cell: str, *lines: Line, us: str = US) -> list[Promise]:
    return [
        Promise(
            f"{what}: {WORDS[metric]}, × {CALLED[to]}", limit, metric in AT_LEAST, _ratio(measure, cell, metric, to, us)
        )
        for metric, limit, to in lines
    ]


WORDS = {"rate": "rate", "mb_per_s": "MB/s", "p50_us": "p50", "cpu_us": "CPU per round trip"}
AT_LEAST = ("rate", "mb_per_s")
SPIN = {500: 3.0, 3_000: 5.0, 20_000: 15.0}
"""Messages a second; % of a core."""

PERSISTENT = {
    1: [("p50_us", 0.9, "direct")],
    4: [("rate", 1.3, "haproxy")],
    16: [("rate", 1.6, "haproxy"), ("rate", 1.0, "bridge")],
    128: [("rate", 2.5, "haproxy"), ("rate", 0.82, "direct"), ("cpu_us", 1.2, "direct")],
    1024: [("rate", 3.0, "haproxy"), ("rate", 0.85, "direct")],
}
CONNECT = {
    1: [("p50_us", 0.6, "haproxy"), ("p50_us", 1.0, "bridge")],
    16: [("rate", 2.1, "haproxy"), ("rate", 0.9, "direct")],
    128: [("rate", 2.4, "haproxy"), ("rate", 1.1, "direct")],
}

PROMISES = [
    *(
        promise
        for count, lines in PERSISTENT.items()
        for promise in _lines(f"64 B persistent, {count:,} at once", "persistent", name(64, count), *lines)
    ),
    *(
        promise
        for measure, after in (("connect", ""), ("connect-after-bulk", " after bulk"))
        for count, lines in CONNECT.items()
        for promise in _lines(f"connect per request{after}, {count} at a time", measure, name(64, count), *lines)
    ),
    *_lines("busy_poll: off, 1 at once", "persistent", name(64, 1), ("p50_us", 1.0, "haproxy"), us=US_NO_POLL),
    *_lines("busy_poll: off, 16 at once", "persistent", name(64, 16), ("rate", 1.4, "haproxy"), us=US_NO_POLL),
    *_lines(
        "mTLS, 64 B persistent, 128 at once",
        "persistent",
        name(64, 128),
        ("rate", 1.9, "envoy-h2-mtls"),
        ("rate", 3.0, "haproxy-mtls"),
        us=US_MTLS,
    ),
    *_lines(
        "mTLS, connect per request, 16 at a time",
        "connect",
        name(64, 16),
        ("rate", 2.4, "envoy-h2-mtls"),
        us=US_MTLS,
    ),
    *_lines("one bulk stream", "bulk", "A to B", ("mb_per_s", 1.0, "envoy-tcp")),
    Promise("idle: CPU of a proxy, % of a core", 0.0, False, _idle_cpu),
    *(
        Promise(f"busy polling at {paced.name(rate)}: CPU of a proxy, % of a core", limit, False, _polling(rate))
        for rate, limit in SPIN.items()
    ),
    Promise("all cells: calls refused or failed", 0, False, _failed_calls),
    Promise("every cell: rate, × another build", AS_FAST, True, _to_other_builds(_full_speed, True)),
    Promise("64 B persistent, 4 at once: rate, × another build", 1.0, True, _to_other_builds(_persistent_4, True)),
    Promise("beside a bulk stream: p50, × another build", 1.03, False, _to_other_builds(_beside_bulk, False)),
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
]
