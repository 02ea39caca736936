"""The hook's program: the one that this installation has, or one that is compiled of its source."""

from __future__ import annotations

import os
import subprocess
import tempfile

from proxy.cdi import build
from proxy.errors import StartError

__all__ = ["obtain", "tried"]

REMEDY = (
    "install a C compiler and libc's static library (Debian: gcc, libc6-dev), or use the image or the package of "
    "Hostlane, which have it"
)


def obtain() -> bytes:
    """The program. Raises StartError, in one line, where there is none and it cannot be compiled. Blocks."""
    try:
        with open(build.COMPILED, "rb") as file:
            return file.read()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StartError(f"{build.COMPILED}: {error.strerror}") from None
    with tempfile.TemporaryDirectory(prefix="hostlane-hook-") as folder:
        made = os.path.join(folder, "hook")
        if why := build.compile_hook(made):
            raise StartError(f"this installation was made without the hook, and {why}; {REMEDY}")
        with open(made, "rb") as file:
            return file.read()


def tried(path: str) -> str:
    """Why the program at `path` cannot run there, as an engine would run it; empty: it can. Blocks."""
    try:
        done = subprocess.run([path, "version"], capture_output=True, timeout=10, check=False)
    except PermissionError:
        return "it may not be run there (is the file system mounted noexec?)"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"it cannot be run there ({getattr(error, 'strerror', None) or 'it does not end'})"
    return "" if done.returncode == 0 else f"it cannot be run there (it ended with {done.returncode})"
