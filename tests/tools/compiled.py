"""Programs in C, compiled for a test."""

from __future__ import annotations

import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
CONNECT_FIRST = HERE / "connectfirst.c"
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wconversion")


def compiled(source: Path | str, program: Path, *flags: str) -> Path:
    """Compile it without a warning; AssertionError with what the compiler says."""
    argv = ["gcc", *WARNINGS, *flags, "-o", str(program), str(source)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program
