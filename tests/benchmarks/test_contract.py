from __future__ import annotations

from benchmarks import contract
from benchmarks.contract import Verdict
from benchmarks.results import Results, Sample


def verdict(samples: list[Sample], start: str) -> Verdict:
    found = Results("", {}, ["haproxy", "envoy-tcp", "hostlane"], samples=samples)
    (line,) = [line for line in contract.verdicts(found) if line.promise.startswith(start)]
    return line


def pair(cell: str, metric: str, ours: float, theirs: float, measure: str = "persistent") -> list[Sample]:
    return [
        Sample(measure, cell, path, 0, {metric: value}) for path, value in (("hostlane", ours), ("haproxy", theirs))
    ]


def test_nothing_measured_is_neither_met_nor_broken() -> None:
    assert {line.met for line in contract.verdicts(Results("", {}, []))} == {None}


def test_at_least() -> None:
    start = "64 B persistent, 128 connections: round trips"
    assert verdict(pair("64 B × 128", "rate", 12.0, 10.0), start).met is True
    assert verdict(pair("64 B × 128", "rate", 11.9, 10.0), start).met is False


def test_at_most() -> None:
    start = "64 B persistent, 128 connections: CPU"
    assert verdict(pair("64 B × 128", "cpu_us", 6.5, 10.0), start).met is True
    assert verdict(pair("64 B × 128", "cpu_us", 6.6, 10.0), start).met is False


def test_the_best_proxy_peer_counts() -> None:
    samples = pair("A to B", "p50_us", 50.0, 100.0, "mixed")
    start = "beside a bulk stream: p50"
    assert verdict(samples, start).met is True
    samples.append(Sample("mixed", "A to B", "envoy-tcp", 0, {"p50_us": 40.0}))
    line = verdict(samples, start)
    assert line.met is False
    assert "envoy-tcp" in line.measured


def trial(ratio: float, stuck: float = 0.0, error: str | None = None) -> Sample:
    kinds = () if error else ("beside", "after_abort")
    values = {f"{kind}_{key}": value for kind in kinds for key, value in (("ratio", ratio), ("stuck", stuck))}
    return Sample("stalled", "the server stops reading", "hostlane", 0, values, error)


def test_every_trial_counts() -> None:
    good = [trial(1.0), trial(1.5)]
    assert verdict(good, "beside a stalled stream").met is True
    for bad in (trial(1.6), trial(1.0, stuck=1.0), trial(0.0, error="no reply")):
        line = verdict([*good, bad], "beside a stalled stream")
        assert line.met is False
        assert line.measured.startswith("1 of 3 trials")


def test_the_better_peer_with_mtls_counts() -> None:
    start = "mTLS, 64 B persistent"
    rates = {"hostlane-mtls": 12.0, "haproxy-mtls": 8.0}
    samples = [Sample("persistent", "64 B × 128", path, 0, {"rate": rate}) for path, rate in rates.items()]
    assert verdict(samples, start).met is True
    samples.append(Sample("persistent", "64 B × 128", "envoy-h2-mtls", 0, {"rate": 10.1}))
    line = verdict(samples, start)
    assert (line.met, line.measured) == (False, "1.19 (best: envoy-h2-mtls, 10/s)")


def test_connections_with_mtls_are_compared_with_each_peer() -> None:
    rates = {"hostlane-mtls": 80.0, "haproxy-mtls": 10.0, "envoy-h2-mtls": 41.0}
    samples = [Sample("connect", "64 B × 16", path, 0, {"rate": rate}) for path, rate in rates.items()]
    start = "mTLS, connect per request, 16 at a time: requests/s, × "
    assert verdict(samples, start + "HAProxy").met is True
    assert verdict(samples, start + "Envoy").met is False
