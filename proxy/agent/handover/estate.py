"""What a running proxy has to hand over (``give.Estate``): every socket that it listens on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import trio

from control.base.reading.addresses import TcpAddress, UnixAddress
from control.base.system.unixsock import BoundUnixSocket
from proxy.agent.drain import Drain
from proxy.agent.handover.give import Offered
from proxy.agent.handover.inheritance import ADMIN, HANDOVER, LINKS, UPSTREAM
from proxy.links.door import Door
from proxy.outbound.sockets import Heirloom
from proxy.outbound.upstreams import Outbound
from proxy.telemetry.notify import notify


class Estate:
    """See the module's text.

    Args:
        links: where links arrive; admin, handover: the proxy's own sockets in run_dir.

    Attributes:
        engaged: somebody is taking over, so that the sockets must stay as they are; left: somebody has.
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
        self.engaged = self.left = False
        self.links_door, self.admin_door, self.handover_door = Door(), Door(), Door()
        self._held = False
        self._outbound, self._drain = outbound, drain
        self._address, self._links = address, links
        self._own = {ADMIN: admin, HANDOVER: handover}

    def engage(self) -> str | None:
        """See `give.Estate`."""
        if self.engaged:
            return "another process is about to take over from it"
        why = self._stops()
        self.engaged = why is None
        return why

    def _stops(self) -> str | None:
        return "it is about to stop" if self._drain.began else None

    def sockets(self) -> Iterator[Offered]:
        """See `give.Estate`."""
        for kind, bound in self._own.items():
            yield Offered(kind, str(UnixAddress(bound.path)), Heirloom(bound.socket, bound.lock, bound.birth))
        for listener in self._links:
            yield Offered(LINKS, self._address.hostport, Heirloom(listener.socket))  # type: ignore[arg-type]
        for opened in self._outbound.sockets.all:
            yield Offered(UPSTREAM, str(opened.upstream.listen), opened.heirloom())

    def hold(self, pid: int) -> str | None:
        """See `give.Estate`: a proxy that has been told to stop meanwhile has closed its sockets and removed their
        files. systemd is told first, as the new process may say at once that it is ready.
        """
        if (why := self._stops()) is None:
            notify(f"MAINPID={pid}")
            self._hold(True)
        return why

    def keep(self) -> None:
        """See `give.Estate`."""
        self.engaged = False
        if self._held:
            notify(f"MAINPID={os.getpid()}")
            self._hold(False)

    def _hold(self, hold: bool) -> None:
        self._held = hold
        for opened in self._outbound.sockets.all:
            opened.hold(hold)
        for bound in self._own.values():
            bound.own(not hold)
        for door in (self.links_door, self.admin_door):
            door.close() if hold else door.open()

    def leave(self, seconds: float) -> None:
        """See `give.Estate`."""
        self.left = True
        self._outbound.sockets.leave()
        self.handover_door.close()
        for bound in self._own.values():
            bound.own(False)
            bound.close()
        for listener in self._links:
            listener.socket.close()
        self._drain.begin(seconds)
