"""Our text is what Prometheus's own parser reads as the numbers that went in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text

from control.base import exposition
from control.base.exposition import Breather, Family, Readings, encoded, lines
from control.base.histogram import Histogram

COUNT = Family("x_things", "counter", "Things.", ("name", "kind"))
SIZE = Family("x_size_bytes", "gauge", "Size.", (), "bytes")
MOST = Family("x_most", "gauge", "Most.", ("name",), most=True)
TIME = Family("x_time_seconds", "histogram", "Time.", ("name",), "seconds")
INFO = Family("x_build", "info", "What.", ("version",))
ALL = (COUNT, SIZE, MOST, TIME, INFO)


def readings() -> Readings:
    found = Readings()
    found.add(COUNT, 3, 'a"b\\c\nd', "one")
    found.add(COUNT, 4, "é", "two")
    found.add(COUNT, 1, "é", "two")
    found.add(SIZE, 1.5)
    found.add(MOST, 2, "a")
    found.add(MOST, 7, "a")
    found.add(MOST, 5, "a")
    histogram = Histogram([0.5, 1.0])
    for value in (0.1, 0.7, 0.8, 3):
        histogram.observe(value)
    found.distribution(TIME, histogram, "t")
    found.distribution(TIME, histogram, "t")
    found.add(INFO, 1, "1.2")
    return found


@pytest.mark.parametrize(("parse", "modern"), [(openmetrics, True), (text, False)], ids=["openmetrics", "text"])
def test_as_the_parser_reads_it(parse: Callable[[str], Any], modern: bool) -> None:
    families = {family.name: family for family in parse("".join(lines(readings(), ALL, modern)))}
    samples = {(s.name, *s.labels.values()): s.value for family in families.values() for s in family.samples}
    assert samples["x_things_total", 'a"b\\c\nd', "one"] == 3
    assert samples["x_things_total", "é", "two"] == 5
    assert samples["x_size_bytes",] == 1.5
    assert samples["x_most", "a"] == 7
    assert samples["x_build_info", "1.2"] == 1
    buckets = {s.labels["le"]: s.value for s in families["x_time_seconds"].samples if s.name.endswith("_bucket")}
    assert buckets == {"0.5": 2, "1.0": 6, "+Inf": 8}
    assert samples["x_time_seconds_count", "t"] == 8
    assert samples["x_time_seconds_sum", "t"] == pytest.approx(9.2)
    assert families["x_things"].type == "counter"
    assert families["x_time_seconds"].documentation == "Time."
    if modern:
        assert (families["x_size_bytes"].unit, families["x_build"].type) == ("bytes", "info")


def test_what_has_no_readings_is_left_out() -> None:
    assert "".join(lines(Readings(), ALL, True)) == "# EOF\n"
    assert "".join(lines(Readings(), ALL, False)) == ""


def test_series_are_counted() -> None:
    found = readings()
    assert found.series == len([line for line in "".join(lines(found, ALL, False)).splitlines() if line[0] != "#"])


async def test_pieces_come_out_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposition, "BREATH", 0.0)
    breather = Breather()
    assert await encoded((f"{number}\n" for number in range(100)), breather) == b"".join(
        b"%d\n" % n for n in range(100)
    )
    assert breather.longest > 0
