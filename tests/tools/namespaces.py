"""Commands as a container would run them: in namespaces of their own, as uid 0, with a directory mounted read-only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

PID = ("--pid", "--fork", "--mount-proc")
"""As every container engine does by default; its uid 0 is the host's."""
USER = ("--user", "--map-root-user")
"""uid 0 inside is the user that started it: root, if that is who runs the test."""

_MOUNTED = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'


def contained(directory: str | Path, argv: Sequence[str], *kinds: tuple[str, ...]) -> list[str]:
    """The command line. Needs root, as it mounts. Without `kinds` the command has only a mount namespace of its own.

    Args:
        kinds: `PID`, `USER`.
    """
    inner = ["unshare", *(option for kind in kinds for option in kind), "--"] if kinds else []
    return ["unshare", "--mount", "sh", "-c", _MOUNTED, "sh", str(directory), *inner, *argv]
