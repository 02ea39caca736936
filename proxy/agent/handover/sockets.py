"""What a running proxy has to hand over (``hand_over.HandoverSource``): every socket that it listens on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import trio

from control.base.reading.addresses import TcpAddress, UnixAddress
from control.base.system.unixsock import BoundUnixSocket
from proxy.agent.drain import Drain
from proxy.agent.handover.inheritance import ADMIN, HANDOVER, LINKS, UPSTREAM
from proxy.agent.handover.sender import OfferedListener
from proxy.links.acceptgate import AcceptGate
from proxy.outbound.sockets import InheritableListener
from proxy.outbound.upstreams import Outbound
from proxy.telemetry.notify import notify


class HandoverSockets:
    """See the module's text.

    Args:
        links: where links arrive; admin, handover: the proxy's own sockets in run_dir.

    Attributes:
        reserved: somebody is taking over, so that the sockets must stay as they are; left: somebody has.
        links_door, admin_door, handover_door: whoever accepts there goes by them.
    """

    def __init__(
        self,
        host: str,
        *,
        outbound: Outbound,
        drain: Drain,
        address: TcpAddress,
        links: Sequence[trio.SocketListener],
        admin: BoundUnixSocket,
        handover: BoundUnixSocket,
    ) -> None:
        self.host = host
        self.reserved = self.left = False
        self.links_gate, self.admin_gate, self.handover_gate = AcceptGate(), AcceptGate(), AcceptGate()
        self._held = False
        self._outbound, self._drain = outbound, drain
        self._address, self._links = address, links
        self._own = {ADMIN: admin, HANDOVER: handover}

    def reserve(self) -> str | None:
        """See `hand_over.HandoverSource`."""
        if self.reserved:
            return "another process is about to take over from it"
        why = self._stops()
        self.reserved = why is None
        return why

    def _stops(self) -> str | None:
        return "it is about to stop" if self._drain.began else None

    def sockets(self) -> Iterator[OfferedListener]:
        """See `hand_over.HandoverSource`."""
        for kind, bound in self._own.items():
            yield OfferedListener(
                kind, str(UnixAddress(bound.path)), InheritableListener(bound.socket, bound.lock, bound.birth)
            )
        for listener in self._links:
            yield OfferedListener(LINKS, self._address.hostport, InheritableListener(listener.socket))  # type: ignore[arg-type]
        for opened in self._outbound.sockets.all:
            yield OfferedListener(UPSTREAM, str(opened.upstream.listen), opened.inheritable())

    def pause(self, pid: int) -> str | None:
        """See `hand_over.HandoverSource`: a proxy that has been told to stop meanwhile has closed its sockets and
        removed their files. systemd is told first, as the new process may say at once that it is ready.
        """
        if (why := self._stops()) is None:
            notify(f"MAINPID={pid}")
            self._hold(True)
        return why

    def resume(self) -> None:
        """See `hand_over.HandoverSource`."""
        self.reserved = False
        if self._held:
            notify(f"MAINPID={os.getpid()}")
            self._hold(False)

    def _hold(self, hold: bool) -> None:
        self._held = hold
        for opened in self._outbound.sockets.all:
            opened.hold(hold)
        for bound in self._own.values():
            bound.own(not hold)
        for gate in (self.links_gate, self.admin_gate):
            gate.close() if hold else gate.open()

    def retire(self, seconds: float) -> None:
        """See `hand_over.HandoverSource`."""
        self.left = True
        self._outbound.sockets.leave()
        self.handover_gate.close()
        for bound in self._own.values():
            bound.own(False)
            bound.close()
        for listener in self._links:
            listener.socket.close()
        self._drain.begin(seconds)
