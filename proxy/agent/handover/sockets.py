"""What a running proxy hands over (`sender.HandoverSource`): every socket that it listens on."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence

from control.base.reading.addresses import TcpAddress
from control.base.system.commanders import Commanders
from proxy.agent.drain import Drain
from proxy.agent.handover.inheritance import HANDOVER, LEASH, LINKS, SCRAPE, UPSTREAM
from proxy.agent.handover.leash import Counts, Leash
from proxy.agent.handover.memoryshares import MemoryShares, Share
from proxy.agent.handover.ownsocket import OwnSocket
from proxy.agent.handover.predecessors import HURRY, Predecessors
from proxy.agent.handover.scrapelistener import ScrapeListener
from proxy.agent.handover.sender import OfferedListener
from proxy.links.acceptgate import AcceptGate
from proxy.links.listening import LinkListeners
from proxy.links.passing import PassedLinks
from proxy.mesh.statelock import StateLock
from proxy.outbound.sockets import InheritableListener
from proxy.outbound.upstreams import Outbound


class HandoverSockets:
    """All listening sockets of the proxy. It owns none of them, but `retire` closes them all; the leashes it owns.

    Args:
        instance: this process, as HELLO names it.
        run_dir: where its own sockets are.
        successors: who may take over, and may say what this process is to do once it was taken over.
        address: ``links.listen``; links: the sockets that listen there.
        own: the proxy's own sockets, in use or not yet.
        predecessors: leashes of the processes that still drain.
        memory: what this process may hold.
        tell: tells systemd (`notify.Notices`).
        state: the lock of its state_dir, if it has one.
        scrape: the socket of telemetry.listen, if it has one.

    Attributes:
        host, state: as given.
        reserved: whether a handover has begun, during which sockets must neither be opened nor closed.
        passed: links that a later process passes to this one.
        left: whether another process has taken over; successor: its process id.
        own: as given.
        counts: the numbers that are told after `retire`.
        links_gate: the gate through which links are accepted.
    """

    def __init__(
        self,
        host: str,
        instance: str,
        run_dir: str,
        *,
        outbound: Outbound,
        drain: Drain,
        address: TcpAddress,
        links: LinkListeners,
        own: Sequence[OwnSocket],
        predecessors: Predecessors,
        successors: Commanders,
        memory: MemoryShares,
        tell: Callable[[str], None],
        state: StateLock | None = None,
        scrape: ScrapeListener | None = None,
    ) -> None:
        self._scrape = scrape
        self.host, self.state = host, state
        self._tell = tell
        self.passed = PassedLinks()
        self._run_dir, self._successors, self._memory = run_dir, successors, memory
        self.reserved = self.left = False
        self.successor = 0
        self.links_gate = AcceptGate()
        self.counts: Counts | None = None
        self._held = False
        self._predecessors, self._leash = predecessors, Leash(instance)
        self._outbound, self._drain = outbound, drain
        self._address, self._links = address, links
        self.own = own

    def reserve(self) -> str | None:
        """See `sender.HandoverSource`."""
        if self.reserved:
            return "another process is about to take over from it"
        why = self._stops()
        self.reserved = why is None
        return why

    def _stops(self) -> str | None:
        return "it is about to stop" if self._drain.began else None

    def sockets(self) -> Iterator[OfferedListener]:
        """See `sender.HandoverSource`."""
        for own in self.own:
            bound = own.kept.bound
            inheritable = InheritableListener(bound.socket, bound.lock, bound.birth)
            yield OfferedListener(own.kind, own.kept.address, inheritable)
        # The one that hears this host itself the other process opens anew.
        for listener in self._links.all[:1]:
            yield OfferedListener(LINKS, self._address.hostport, InheritableListener(listener.socket))  # type: ignore[arg-type]
        if self._scrape is not None:
            address = self._scrape.address.hostport
            yield OfferedListener(SCRAPE, address, InheritableListener(self._scrape.sock))
        for name, inheritable in self._predecessors.offers():
            yield OfferedListener(LEASH, name, inheritable)
        yield OfferedListener(LEASH, self._leash.name, InheritableListener(self._leash.far))
        for opened in self._outbound.sockets.all:
            yield OfferedListener(UPSTREAM, str(opened.upstream.listen), opened.inheritable())

    def pause(self, pid: int) -> str | None:
        """See `sender.HandoverSource`. It refuses if the proxy was told to stop meanwhile, which closes the sockets and
        removes their files. systemd is told first, as the new process may report that it is ready at once.
        """
        self.successor = pid
        if (why := self._stops()) is None:
            if pid:  # otherwise it is of a container, where there is no systemd
                self._tell(f"MAINPID={pid}")
            self._hold(True)
        return why

    def resume(self) -> None:
        """See `sender.HandoverSource`."""
        self.reserved = False
        if self._held:
            self._tell(f"MAINPID={os.getpid()}")
            self._hold(False)

    def _hold(self, hold: bool) -> None:
        self._held = hold
        for opened in self._outbound.sockets.all:
            opened.hold(hold)
        for own in self.own:
            own.kept.bound.own(not hold)
        # Who comes to take over meanwhile is told that somebody else is about to.
        gates = [self.links_gate, *(own.gate for own in self.own if own.kind != HANDOVER)]
        for gate in gates if self._scrape is None else [*gates, self._scrape.gate]:
            gate.close() if hold else gate.open()

    def renew_links(self) -> None:
        """The listeners for links are others now: accept there, unless nothing is accepted at the moment."""
        if self.links_gate.is_open:
            self.links_gate.close()
            self.links_gate.open()

    def retire(self, seconds: float) -> None:
        """See `sender.HandoverSource`."""
        self.left = True
        self._outbound.sockets.leave()
        for own in self.own:
            own.gate.close()
            own.kept.bound.own(False)
            own.kept.close()
        if self._scrape is not None:
            self._scrape.close()
        self._links.close()
        if self.state is not None:
            self.state.close()
        self._predecessors.close()
        self._leash.let_go(self._run_dir)
        self._drain.begin(seconds, succeeded=True)

    async def heed(self) -> None:
        """After `retire`: do what the process says that accepts (`leash.Follower`), until cancelled."""
        await self._drain.told()
        if self.left:
            await self._leash.follow(self, self._successors, self.counts)

    async def tell_last(self) -> None:
        """When all streams are over: tell the process that has taken over, if one has, what has been counted."""
        if self.left and self.counts is not None:
            await self._leash.last(self.counts)

    def hurry(self) -> None:
        """See `leash.Follower`."""
        self._drain.begin(HURRY, succeeded=True)

    def link(self, connection: socket.socket) -> None:
        """See `leash.Follower`."""
        self.passed.put(connection)

    def may(self, share: Share) -> None:
        """See `leash.Follower`."""
        self._memory.told(share)

    def uses(self) -> int:
        """See `leash.Follower`."""
        return self._memory.use

    def close(self) -> None:
        """Close the leashes, and links that were passed to this process and not taken. Idempotent."""
        self._predecessors.close()
        self._leash.close()
        self.passed.close()
