from __future__ import annotations

from control.base.reading.times import when


def test_a_moment() -> None:
    assert when(0) == "1970-01-01 00:00 UTC"
    assert when(1_800_000_000.9) == "2027-01-15 08:00 UTC"
