from __future__ import annotations

import re

from benchmarks import scrapestall


async def test_a_small_one() -> None:
    """That it measures; what it says of this machine is nobody's promise here."""
    said = await scrapestall.measure(series=600, scrapes=2)
    assert len(said) == 5
    assert [line.split()[0] for line in said] == ["scrape", "1", "2", "longest", "median"]
    found = re.fullmatch(r"longest of (\d+) series: CPU ([\d.]+) ms, wall ([\d.]+) ms between two turns", said[3])
    assert found is not None
    assert int(found[1]) >= 600
    assert float(found[2]) > 0
