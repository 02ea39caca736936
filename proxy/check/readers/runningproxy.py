"""The proxy that runs with a configuration: whoever listens on its admin socket."""

from __future__ import annotations

import socket
import struct

PATIENCE_S = 2.0


def running(path: str) -> int | None:
    """The process that listens on a Unix socket, if one does."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE_S)
        try:
            sock.connect(path)
            pid, _, _ = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        except OSError:
            return None
    # The kernel says 0 for a process in a pid namespace that this one cannot see into.
    return int(pid) or None
