"""The proxy that runs with a configuration: whoever listens on its admin socket, and what it says of itself."""

from __future__ import annotations

import os
import socket
import stat
from typing import NamedTuple

from control.api.messages import Status
from control.base.reading.addresses import ADMIN_SOCKET
from control.base.system.peercred import credentials_of
from proxy.config.schema import Config

PATIENCE_S = 2.0


class Told(NamedTuple):
    """`told`'s answer. `refused`: it answers, but not to this process, say one outside of its container."""

    status: Status | None
    why: str
    refused: bool = False


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


def told(config: Config) -> Told:
    """What the proxy says at its admin socket, or else at its socket for monitoring; without an answer, why there is
    none at the first; empty: there is no such socket. Each of the two may take `admin.TIMEOUT`.
    """
    first = _ask(f"{config.run_dir}/{ADMIN_SOCKET}")
    if first.status is None and config.telemetry.socket is not None:
        return first._replace(status=_ask(config.telemetry.socket).status)
    return first


def _ask(path: str) -> Told:
    # Imported here: it takes a tenth of a second.
    from control.api import admin

    if not is_socket(path):
        return Told(None, "")
    try:
        return Told(admin.ask(path, "/status", Status)[0], "")
    except admin.NoAnswer as error:
        return Told(None, str(error), isinstance(error, admin.Refused))


def is_socket(path: str) -> bool:
    """Whether there is one, as far as this process may look."""
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False
