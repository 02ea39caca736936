"""Small files of the kernel: their text, or why there is none."""

from __future__ import annotations

import errno
import os

from proxy.check.report import Unchecked

ABSENT = "there is no such file here"
"""Why a file that does not exist was not seen."""

_REASONS = {
    errno.ENOENT: ABSENT,
    errno.EACCES: "no permission; ask as root",
    errno.EPERM: "no permission; ask as root",
}


def text(path: str) -> str | Unchecked:
    """The content of a file, without white space around it. Never raises OSError."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read().strip()
    except OSError as error:
        return unseen(path, error)


def number(path: str, what: str) -> int | Unchecked:
    """The content of a file that holds one number; ``what`` is its name in what is said of it."""
    found = text(path)
    if isinstance(found, Unchecked):
        return Unchecked(what, found.why)
    try:
        return int(found)
    except ValueError:
        return Unchecked(what, f"{path} holds no number")


def sysctl(name: str) -> int | Unchecked:
    """A sysctl of this thread's network namespace, by its name with dots. Names of interfaces in it have none."""
    return number("/proc/sys/" + name.replace(".", "/"), name)


def unseen(what: str, error: OSError) -> Unchecked:
    """Why the system would not show ``what``."""
    code = error.errno or 0
    return Unchecked(what, _REASONS.get(code, os.strerror(code).lower()))
