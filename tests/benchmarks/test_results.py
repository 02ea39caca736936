from __future__ import annotations

from pathlib import Path

from benchmarks import results
from benchmarks.results import Results, Sample


def made() -> Results:
    samples = [
        Sample("persistent", "64 B × 16", path, number, {"rate": rate})
        for number, (ours, theirs) in enumerate([(20.0, 10.0), (90.0, 30.0), (5.0, 5.0)])
        for path, rate in (("hostlane", ours), ("haproxy", theirs))
    ]
    return Results("make bench", {"cpu": "some"}, ["haproxy", "hostlane"], samples=samples)


def test_median_and_ratio_over_the_rounds() -> None:
    found = made()
    assert found.median("persistent", "64 B × 16", "hostlane", "rate") == 20.0
    assert found.ratio("persistent", "64 B × 16", "hostlane", "rate") == 2.0
    assert found.ratio("persistent", "64 B × 16", "haproxy", "rate") == 1.0


def test_what_was_not_measured_is_none() -> None:
    found = made()
    assert found.median("persistent", "64 B × 16", "hostlane", "p50_us") is None
    assert found.ratio("persistent", "64 B × 128", "hostlane", "rate") is None
    assert found.error("persistent", "64 B × 16", "hostlane") is None


def test_error_is_the_first_of_the_cell_or_that_of_the_path() -> None:
    found = made()
    found.samples.append(Sample("bulk", "A to B", "hostlane", 0, error="no reply"))
    found.failures["envoy-h2"] = "not installed"
    assert found.error("bulk", "A to B", "hostlane") == "no reply"
    assert found.error("bulk", "A to B", "envoy-h2") == "not installed"


def test_save_and_load(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    results.save(made(), file)
    assert results.load(file) == made()
