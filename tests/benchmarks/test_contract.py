from __future__ import annotations

from benchmarks import contract
from benchmarks.contract import Verdict
from benchmarks.results import Results, Sample


def verdict(samples: list[Sample], start: str, *others: str) -> Verdict:
    paths = ["haproxy", "envoy-tcp", "hostlane", "hostlane-no-poll", *others]
    found = Results("", {}, paths, list(others[:1]), samples=samples)
    (line,) = [line for line in contract.verdicts(found) if line.promise.startswith(start)]
    return line


def pair(cell: str, metric: str, ours: float, theirs: float, measure: str = "persistent") -> list[Sample]:
    return [
        Sample(measure, cell, path, 0, {metric: value}) for path, value in (("hostlane", ours), ("haproxy", theirs))
    ]


def test_nothing_measured_is_neither_met_nor_broken() -> None:
    assert {line.met for line in contract.verdicts(Results("", {}, []))} == {None}


def test_at_least() -> None:
    start = "64 B persistent, 128 at once: rate, × HAProxy"
    assert verdict(pair("64 B × 128", "rate", 25.0, 10.0), start).met is True
    assert verdict(pair("64 B × 128", "rate", 24.9, 10.0), start).met is False


def test_at_most() -> None:
    start = "connect per request, 1 at a time: p50, × HAProxy"
    assert verdict(pair("64 B × 1", "p50_us", 6.0, 10.0, "connect"), start).met is True
    assert verdict(pair("64 B × 1", "p50_us", 6.1, 10.0, "connect"), start).met is False


def test_who_does_not_proxy_is_a_measure_too() -> None:
    samples = pair("64 B × 128", "rate", 12.0, 0.0, "connect-after-bulk")
    samples += [Sample("connect-after-bulk", "64 B × 128", "direct", 0, {"rate": 10.0})]
    assert verdict(samples, "connect per request after bulk, 128 at a time: rate, × direct").met is True


def test_without_busy_polling_it_is_that_path_that_counts() -> None:
    samples = [
        *pair("64 B × 16", "rate", 20.0, 10.0),
        Sample("persistent", "64 B × 16", "hostlane-no-poll", 0, {"rate": 13.9}),
    ]
    assert verdict(samples, "busy_poll: off, 16 at once").met is False


def test_what_busy_polling_costs_is_the_difference_within_a_round() -> None:
    samples = [
        Sample("paced", "3,000 messages/s", path, number, {"core_percent": percent})
        for number, both in enumerate([(20.0, 26.0), (50.0, 54.0), (30.0, 34.5)])
        for path, percent in zip(("hostlane-no-poll", "hostlane"), both, strict=True)
    ]
    line = verdict(samples, "busy polling at 3,000 messages/s")
    assert (line.met, line.measured) == (True, "4.5 (34.5 and 30.0)")


def test_an_idle_proxy_costs_nothing_that_can_be_seen() -> None:
    start = "idle: CPU of a proxy"
    for percent, met in ((0.04, True), (0.06, False)):
        assert verdict([Sample("paced", "idle", "hostlane", 0, {"core_percent": percent})], start).met is met


def test_each_call_that_failed_counts_and_each_cell() -> None:
    start = "all cells: calls refused or failed"
    good = pair("64 B × 16", "errors", 0.0, 7.0)
    assert verdict(good, start).met is True
    assert verdict([*good, Sample("bulk", "A to B", "hostlane-mtls", 0, error="no reply")], start).met is False
    line = verdict([*good, Sample("connect", "64 B × 16", "hostlane", 0, {"errors": 3.0})], start)
    assert (line.met, line.measured) == (False, "3 calls, 0 of 2 samples")


def beside_old(*rates: tuple[str, float, float]) -> list[Sample]:
    return [
        Sample("persistent", cell, path, 0, {"rate": rate})
        for cell, ours, theirs in rates
        for path, rate in (("hostlane", ours), ("old", theirs))
    ]


def test_the_worst_cell_beside_another_build_counts() -> None:
    start = "every cell: rate, × another build"
    assert verdict(beside_old(("64 B × 4", 9.8, 10.0), ("64 B × 16", 30.0, 10.0)), start, "old").met is True
    line = verdict(beside_old(("64 B × 4", 9.6, 10.0), ("64 B × 16", 30.0, 10.0)), start, "old")
    assert (line.met, line.measured) == (False, "0.96 (persistent 64 B × 4, hostlane to old)")
    mtls = [
        Sample("bulk", "A to B", path, 0, {"mb_per_s": rate})
        for path, rate in (("hostlane-mtls", 9.0), ("old-mtls", 10.0))
    ]
    assert verdict(mtls, start, "old", "old-mtls").measured == "0.90 (bulk A to B, hostlane-mtls to old-mtls)"


def test_each_line_says_what_another_build_has() -> None:
    samples = [*pair("64 B × 16", "rate", 20.0, 10.0), Sample("persistent", "64 B × 16", "old", 0, {"rate": 15.0})]
    assert verdict(samples, "64 B persistent, 16 at once: rate, × HAProxy", "old").measured == "2.00 (old: 1.50)"


def test_the_best_proxy_peer_counts() -> None:
    samples = pair("A to B", "p50_us", 50.0, 100.0, "mixed")
    start = "beside a bulk stream: p50, × best"
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


def test_with_mtls_each_peer_is_compared_with() -> None:
    rates = {"hostlane-mtls": 30.0, "haproxy-mtls": 10.0, "envoy-h2-mtls": 16.0}
    samples = [Sample("persistent", "64 B × 128", path, 0, {"rate": rate}) for path, rate in rates.items()]
    start = "mTLS, 64 B persistent, 128 at once: rate, × "
    assert verdict(samples, start + "HAProxy").met is True
    assert verdict(samples, start + "Envoy").met is False
