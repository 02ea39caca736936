"""The listening sockets of a proxy's upstreams, kept for the next proxy: callers wait there while there is none."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import structlog

__all__ = ["MOST_KEPT", "KeptSockets"]

log = structlog.get_logger()

MOST_KEPT = 1024
"""Sockets that the door keeps. Each is a descriptor."""


class KeptSockets:
    """By the names that the proxy gives them. Owns them until `close`."""

    def __init__(self) -> None:
        self._kept: dict[str, socket.socket] = {}

    def __iter__(self) -> Iterator[tuple[str, socket.socket]]:
        return iter([*self._kept.items()])

    def keep(self, name: str, sock: socket.socket) -> None:
        """Take a socket over, in the place of one that has the name. One too many is closed, and a line logged."""
        self.drop(name)
        if len(self._kept) >= MOST_KEPT:
            log.warning("a socket of the proxy is not kept: its callers are refused between two", at_most=MOST_KEPT)
            sock.close()
        else:
            self._kept[name] = sock

    def drop(self, name: str) -> None:
        """Close one. Idempotent."""
        if (sock := self._kept.pop(name, None)) is not None:
            sock.close()

    def close(self) -> None:
        """Close them all. Idempotent."""
        for name in [*self._kept]:
            self.drop(name)
