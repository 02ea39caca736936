"""The image is built of what a build needs: nobody notices a missing file before the image runs the plain core."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "proxy", "control")


@pytest.mark.parametrize("name", NEEDED)
def test_the_build_stage_gets_it(name: str) -> None:
    assert (ROOT / name).exists()
    assert f"!{name}" in (ROOT / ".dockerignore").read_text().splitlines()
    stage = (ROOT / "Dockerfile").read_text().split("\nFROM ")[1]
    copied = [word for line in re.findall(r"^COPY (.*)$", stage, re.MULTILINE) for word in line.split()[:-1]]
    assert name in copied


def test_no_start_compiles_the_standard_library_again() -> None:
    """Python's public image has none of it compiled; whoever runs ours may not write there."""
    stage = (ROOT / "Dockerfile").read_text().split("\nFROM ")[2]
    assert stage.index("python -m compileall") < stage.index("PYTHONDONTWRITEBYTECODE=1") < stage.index("USER hostlane")


def test_what_was_compiled_on_this_machine_stays_here() -> None:
    assert "**/*.so" in (ROOT / ".dockerignore").read_text().splitlines()
