"""What containers have by their labels, and whether the door is there: read when somebody asks."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from control.api.messages import ContainerOffer, ContainerSocket, DoorStatus
from control.base.reading.addresses import UnixAddress
from proxy.config.schema import Config
from proxy.door.namespaces import cookie_of
from proxy.outbound.upstreams import Outbound
from proxy.pump.options import LocalSocket
from proxy.pump.stock import InsideAddress

MOST_ASKED = 1000
"""Sockets that are asked for where they were accepted, 2 µs each: of more calls, every so manieth."""
LONG = 10.0
"""Seconds that the door may be away before that is a problem: a new one has all in a second or two."""

_Where = tuple[int, object]
"""Number of a network namespace, 0 for Unix sockets, and the socket's name there."""


class DoorState(NamedTuple):
    """Whether the door is there and has said what there is, for how many seconds it is so, and why it is away."""

    connected: bool
    seconds: float
    error: str

    @property
    def problem(self) -> str:
        """What to say of it if it is away for long; else empty."""
        if self.connected or self.seconds < LONG:
            return ""
        return f"the door is away: {self.error or 'no answer yet'}; containers that start or end are not noticed"


def door_status(
    state: DoorState, config: Config, outbound: Outbound, calls: Sequence[tuple[str, LocalSocket | None]]
) -> DoorStatus:
    """What there is now.

    Args:
        calls: the open calls of this host's callers: service and the caller's socket.
    """
    step = -(-len(calls) // MOST_ASKED) or 1
    open_at = Counter(filter(None, (_where(sock) for _, sock in calls[::step])))

    def streams(listening: LocalSocket) -> int:
        where = _where(listening)
        return 0 if where is None else open_at[where] * step

    sockets = [
        ContainerSocket(
            container=each.container,
            caller=each.caller,
            service=each.service,
            listen=f"tcp:{address.hostport}",
            streams=streams(each.sock),
        )
        for (_, address), each in outbound.inside
    ]
    for at, (service, upstream) in outbound.directories.serving.items():
        opened = outbound.sockets.opened.get(at)
        if opened is not None and isinstance(at, UnixAddress):
            container = os.path.basename(os.path.dirname(at.path))
            caller, count = upstream.caller or "", streams(opened.sock)
            sockets.append(
                ContainerSocket(container=container, caller=caller, service=service, listen=str(at), streams=count)
            )
    offers = [
        ContainerOffer(container=each.deliver.container, service=name, deliver=f"tcp:{each.deliver.hostport}")
        for name, each in config.services.items()
        if isinstance(each.deliver, InsideAddress)
    ]
    return DoorStatus(
        connected=state.connected,
        for_s=state.seconds,
        error="" if state.connected else state.error,
        sockets=sorted(sockets, key=lambda each: (each.container, each.service, each.listen)),
        offers=sorted(offers, key=lambda each: (each.container, each.service)),
        problems=list(outbound.directories.problems),
    )


def _where(sock: LocalSocket | None) -> _Where | None:
    """Where a socket listens, or was accepted; None: it is closed."""
    try:
        if sock is None:
            return None
        name = sock.getsockname()
        return (0, name) if sock.family == socket.AF_UNIX else (cookie_of(sock), name[:2])
    except OSError:
        return None
