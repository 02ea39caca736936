"""Names and labels keep to what Prometheus expects of them."""

from __future__ import annotations

import re
from pathlib import Path

from proxy.telemetry.metrics import catalog

DOC = Path(__file__).resolve().parents[3] / "docs" / "metrics.md"


def test_each_metric_has_one_name_which_ends_in_its_unit() -> None:
    names = [family.name for family in catalog.ALL]
    assert len(set(names)) == len(names) > 40
    for family in catalog.ALL:
        assert family.name.startswith("hostlane_")
        assert not family.unit or family.name.endswith(f"_{family.unit}"), family.name
        assert set(family.labels) <= {*catalog.CLOSED, *catalog.OF_LABELS, "version", "python"}


def test_the_document_lists_them_all_and_no_others() -> None:
    text = DOC.read_text()
    part = text[text.index("## All metrics of a proxy") :].split("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in part.splitlines() if line.startswith("| `")
    ]
    assert [(name, kind, unit, labels, meaning) for name, kind, unit, labels, meaning in rows] == [
        (
            f"`{family.full_name}`",
            family.kind,
            family.unit or "–",
            ", ".join(f"`{label}`" for label in family.labels) or "–",
            family.text,
        )
        for family in catalog.ALL
    ]


def test_the_document_lists_the_closed_values() -> None:
    labels = DOC.read_text().split("## Labels", 1)[1].split("\n## ", 1)[0]
    for label, values in catalog.CLOSED.items():
        [row] = [line for line in labels.splitlines() if line.startswith(f"| `{label}` |")]
        assert re.findall(r"`(\w+)`", row)[1:] == list(values), label
