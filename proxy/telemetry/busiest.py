"""Which caller of this host has most calls open: where to look first when streams or descriptors run out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from control.api.messages import BusiestSource
from proxy.pump.options import LocalSocket, peer_process
from proxy.pump.ourselves import caller_of

MOST_ASKED = 1000
"""Sockets whose other end is asked for, 1 µs each: of more calls, every so manieth."""

_Who = tuple[str, int | None, int | None, str | None]
"""Service, uid, pid, address."""


def busiest(callers: Sequence[tuple[str, LocalSocket | None]]) -> BusiestSource | None:
    """The one with most calls of one service; None if there are no calls.

    Args:
        callers: for each call its service and the caller's socket, if that is still open.
    """
    step = -(-len(callers) // MOST_ASKED) or 1
    found = Counter(_who(service, sock) for service, sock in callers[::step])
    if not found:
        return None
    [((service, uid, pid, address), count)] = found.most_common(1)
    return BusiestSource(service=service, streams=count * step, uid=uid, pid=pid, address=address)


def _who(service: str, sock: LocalSocket | None) -> _Who:
    if sock is None or sock.fileno() < 0:
        return service, None, None, None
    process = peer_process(sock)
    if process is not None:
        return service, process[0], process[1] or None, None
    source = caller_of(sock)
    return service, None, None, None if source is None else source[0]
