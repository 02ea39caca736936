"""An HTTP client of a Unix socket. Blocks."""

from __future__ import annotations

import socket

import httpx

__all__ = ["unix_client"]


def unix_client(path: str, seconds: float) -> httpx.Client:
    """A client of whoever listens at `path`, which waits so long for each step; whoever gets it closes it.

    Raises OSError when nobody can be reached there.
    """
    # Connect and leave again: httpx would hide the errno, and leave its socket open.
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(seconds)
        probe.connect(path)
    # The environment's proxy settings are about other servers than this one.
    return httpx.Client(transport=httpx.HTTPTransport(uds=path), timeout=seconds, trust_env=False)
