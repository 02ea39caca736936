"""Runs a program with the compiled core and with the plain one, and compares what the two say, line by line.

Such a program is a module of this folder, ``python -m tests.differential.NAME SEED``: it does random things to the
core, the same for the same seed, and writes down all that can be seen of it. It says first what the core runs as.
"""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import zip_longest
from pathlib import Path

import pytest

from tests.tools.whole import whole

ROOT = Path(__file__).resolve().parents[2]
SEEDS = range(whole(200, quick=6))
BEFORE = 3
"""Lines shown before the first one that differs."""


def start(name: str, seed: int, *, pure: bool) -> subprocess.Popen[str]:
    """The program on one of the two cores. Order of sets and the like is the same in both."""
    settings = {"HOSTLANE_PURE": "1" if pure else "0", "PYTHONHASHSEED": "0"}
    return subprocess.Popen(
        [sys.executable, "-m", f"tests.differential.{name}", str(seed)],
        cwd=ROOT,
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def compare(name: str, seed: int) -> None:
    """Run both at the same time; fail the test at the first line in which they differ."""
    said = []
    for process in [start(name, seed, pure=pure) for pure in (True, False)]:
        out, err = process.communicate()
        assert process.returncode == 0, f"seed {seed}: {err}"
        said.append(out.splitlines())
    plain, compiled = said
    assert plain[0] == "core: python"
    if compiled[0] != "core: compiled":
        pytest.skip("the core is not compiled: make core")
    assert len(plain) > 10
    for number, (one, other) in enumerate(zip_longest(plain[1:], compiled[1:]), 1):
        if one != other:
            before = "\n".join(plain[max(1, number - BEFORE) : number])
            pytest.fail(f"{name}, seed {seed}, line {number}:\n{before}\nplain:    {one}\ncompiled: {other}", False)
