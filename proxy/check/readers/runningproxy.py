"""The proxy that runs with a configuration: whoever listens on its admin socket."""

from __future__ import annotations

import socket

from control.base.system.peercred import credentials_of

PATIENCE_S = 2.0


def running(path: str) -> int | None:
    """The process that listens on a Unix socket, if one does."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE_S)
        try:
            sock.connect(path)
            pid = credentials_of(sock).pid
        except OSError:
            return None
    # The kernel says 0 for a process in a pid namespace that this one cannot see into.
    return pid or None
