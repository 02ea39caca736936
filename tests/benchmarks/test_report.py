from __future__ import annotations

from benchmarks import report
from benchmarks.results import Results, Sample


def made() -> Results:
    samples = [
        Sample("persistent", "64 B × 128", "haproxy", 0, {"rate": 20_000.0, "cpu_us": 70.0}),
        Sample("persistent", "64 B × 128", "hostlane", 0, {"rate": 30_000.0, "cpu_us": 35.0, "errors": 2}),
        Sample("bulk", "A to B", "hostlane", 0, error="WRONG BYTES: bulk: byte 7"),
    ]
    found = Results("make bench QUICK=1", {"cpu": "one of them"}, ["haproxy", "envoy-h2", "hostlane"], samples=samples)
    found.failures["envoy-h2"] = "envoy is not installed"
    return found


def test_header_says_how_and_where() -> None:
    text = report.render(made())
    assert "`make bench QUICK=1`" in text
    assert "| cpu | one of them |" in text


def test_rows_hold_medians_and_ratios() -> None:
    text = report.render(made())
    assert "| 64 B × 128 | 20,000 | failed | 30,000 · 1.50× |" in text
    assert "| 64 B × 128 | 70.0 | failed | 35.0 · 0.50× |" in text


def test_contract_says_not_met_and_not_measured() -> None:
    text = report.render(made())
    assert "128 at once: rate, × HAProxy ≥ 2.5 | 1.50 | **not met** |" in text
    assert "1,024 at once: rate, × HAProxy ≥ 3 | not measured | – |" in text


def test_failures_are_named() -> None:
    text = report.render(made())
    assert "- envoy-h2: envoy is not installed" in text
    assert "- hostlane, bulk, A to B: WRONG BYTES: bulk: byte 7" in text
    assert "- hostlane, persistent, 64 B × 128: 2 connections broke" in text


def test_a_measure_that_was_not_asked_for_has_no_table() -> None:
    assert "Memory" not in report.render(made())


def test_another_build_is_compared_with_ours_too() -> None:
    found = made()
    found.paths.append("old")
    found.builds.append("old")
    found.samples.append(Sample("persistent", "64 B × 128", "old", 0, {"rate": 15_000.0, "cpu_us": 70.0}))
    text = report.render(found)
    assert "| 64 B × 128 | 20,000 | failed | 30,000 · 1.50× | 15,000 · 0.75× · 0.50× hostlane |" in text
    assert "Other builds of Hostlane (old) have their ratio to `hostlane` behind that." in text


def test_connect_after_bulk_has_its_ratio_to_before() -> None:
    found = made()
    values = {"rate": 900.0, "cpu_us": 55.0, "after_ratio": 0.9, "after_cpu_ratio": 1.1}
    found.samples.append(Sample("connect-after-bulk", "64 B × 16", "hostlane", 0, values))
    text = report.render(found)
    assert "× before" in text
    assert "| 64 B × 16 | – | failed | 0.90 |" in text
