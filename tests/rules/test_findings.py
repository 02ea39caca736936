"""What `hostlane check` may say stands in docs/check.md, and somebody has planted it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RULES = sorted((ROOT / "proxy/check/rules").glob("*.py"))
PLACES = [*sorted((ROOT / "tests/check/readers").glob("test_*.py")), ROOT / "tests/vm/check.py"]
"""Network namespaces, and an emulated machine for what no namespace can have: modules, a card, the clock."""
PLANTED = "\n".join(path.read_text() for path in PLACES)


def names(source: str) -> Iterator[str]:
    """The names of the findings that a source makes; a name with a variable in it has ``*`` there."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Finding":
            for keyword in node.keywords:
                if keyword.arg == "name":
                    parts = keyword.value.values if isinstance(keyword.value, ast.JoinedStr) else [keyword.value]
                    yield "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in parts)


ALL = sorted({name for path in RULES for name in names(path.read_text())})


def test_findings_are_read() -> None:
    assert {"bridged-route", "docker-dns-conntrack", "mtu-black-hole", "duplicate-ip", "*-off"} <= set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_it_is_explained(name: str) -> None:
    headings = re.findall(r"^### (.*)$", (ROOT / "docs/check.md").read_text(), re.MULTILINE)
    assert any(re.fullmatch(name.replace("*", ".*"), word) for heading in headings for word in heading.split(", "))


@pytest.mark.parametrize("name", ALL)
def test_it_is_planted(name: str) -> None:
    assert f'"{name}"'.strip('"*' if "*" in name else "") in PLANTED
