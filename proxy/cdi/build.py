"""Compiling the hook. It stands alone: setup.py runs it where nothing of ours can be imported yet."""

from __future__ import annotations

import os
import shutil
import subprocess

__all__ = ["COMPILED", "FLAGS", "SOURCE", "compile_hook"]

_HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.join(_HERE, "hook.c")
COMPILED = os.path.join(_HERE, "hostlane-hook")
"""Where an installation has it that was made where there is a compiler."""
FLAGS = ("-std=c11", "-O2", "-static", "-s")
"""Static: it runs on hosts where nothing is installed."""
COMPILERS = ("cc", "gcc", "clang")


def compile_hook(program: str) -> str:
    """Compile it to that path. Returns why it cannot be, in a line; empty: it is there. Blocks."""
    compiler = next((found for name in COMPILERS if (found := shutil.which(name)) is not None), None)
    if compiler is None:
        return "there is no C compiler here"
    done = subprocess.run([compiler, *FLAGS, "-o", program, SOURCE], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    lines = done.stderr.splitlines() or ["it says nothing"]
    why = next((line for line in lines if "error" in line or "cannot" in line), lines[0])
    return f"{compiler} cannot compile it ({why.strip()})"
