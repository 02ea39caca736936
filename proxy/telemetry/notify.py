"""Telling systemd where the proxy stands (sd_notify(3)): a datagram to the socket that it names, if it names one."""

from __future__ import annotations

import array
import os
import socket
import time

import structlog

log = structlog.get_logger()

VARIABLE = "NOTIFY_SOCKET"


def notify(state: str, *descriptors: int) -> bool:
    """Send a state, such as ``READY=1``, lines separated by newlines, and duplicates of descriptors. Returns whether it
    was sent. Never raises: a supervisor that does not listen is no reason to end.
    """
    address = os.environ.get(VARIABLE, "")
    if not address.startswith(("/", "@")):
        return False
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    # @: the abstract name space, where a name begins with a zero byte.
    target = "\0" + address[1:] if address[0] == "@" else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            sock.sendmsg([state.encode()], rights, 0, target)
    except OSError as error:
        log.warning("cannot tell systemd", kind=(), socket=address, error=error.strerror)
        return False
    return True


def reloading() -> str:
    """The state "reloading", for a unit of Type=notify-reload, which wants to know when it began (CLOCK_MONOTONIC)."""
    return f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}"


def stopping(seconds: float) -> str:
    """The state "stopping", which may take so many seconds (whatever TimeoutStopSec says)."""
    return f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int((seconds + GRACE) * 1e6)}"


GRACE = 5.0
"""Seconds for what comes behind a drain: closing thousands of sockets takes a fraction of one."""
