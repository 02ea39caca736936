"""The hook and its CDI file on the host: put there, and taken away again, so that no container is kept from starting
in between: an engine refuses to start one whose device is not there, or whose hook is not.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from control.base.wholefile import read_file, write_file
from proxy.cdi import program, spec
from proxy.errors import StartError

__all__ = ["install", "remove", "there"]

MOST = 1 << 20


def there(directory: str) -> spec.HookCall | None:
    """What the installed file says; None: it has the device without hooks. Raises FileNotFoundError if there is none,
    StartError if it is somebody else's or cannot be read.
    """
    path = os.path.join(directory, spec.FILE)
    if not os.path.lexists(path):
        raise FileNotFoundError(path)
    try:
        return spec.read(read_file(path, MOST, "a CDI file"))
    except ValueError as error:
        raise StartError(f"{path}: {error}") from None


def install(directory: str, call: spec.HookCall, content: bytes) -> None:
    """Write the hook, try it, and then the file that names it. What was installed before is replaced. Raises
    StartError; all is as before then. Blocks on the disk.

    Args:
        content: the hook, see `program.obtain`.
    """
    path = directory
    try:
        try:
            before = there(directory)
        except FileNotFoundError:
            before = None
        for path in dict.fromkeys((directory, os.path.dirname(call.program))):
            os.makedirs(path, mode=0o755, exist_ok=True)
        path = call.program
        if os.path.isdir(path):
            raise StartError(f"{path}: it is a directory; allowed: the file that the hook is to be")
        new = f"{path}.new"
        try:
            write_file(new, content, 0o755)
            if why := program.tried(new):
                raise StartError(f"{path}: {why}; allowed: --hook FILE, elsewhere on the host")
            os.rename(new, path)
        finally:
            _gone(new)
        path = os.path.join(directory, spec.FILE)
        write_file(path, spec.write(call), 0o644)
        if before is not None and before.program != call.program:
            path = before.program
            _gone(path)
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}") from None


def remove(directory: str, keep: bool) -> Sequence[str]:
    """Take hook and file away, or have the file say that the device does nothing if `keep`. Returns the paths of what
    is gone. Raises StartError. Blocks on the disk.
    """
    gone = []
    path = os.path.join(directory, spec.FILE)
    try:
        try:
            call = there(directory)
        except FileNotFoundError:
            return []
        if keep:
            write_file(path, spec.without_hooks(), 0o644)
        else:
            os.unlink(path)
            gone.append(path)
        path = call.program if call is not None else ""
        if path and _gone(path):
            gone.append(path)
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}") from None
    return gone


def _gone(path: str) -> bool:
    """Delete the file. Returns False if there was none. Raises OSError."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True
