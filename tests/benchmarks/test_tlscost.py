from __future__ import annotations

from benchmarks import tlscost


def test_every_way_carries_every_size() -> None:
    lines = tlscost.table(sizes=(64, 262144), seconds=0.001, tries=1).splitlines()
    assert lines[0] == "| bytes | plain, µs | SSLSocket, µs | TlsWire, µs | TlsWire, MB/s |"
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| 64", "| 262,144"]
    assert all(float(cell.replace(",", "")) >= 0 for line in lines[2:] for cell in line.strip("| ").split(" | "))
