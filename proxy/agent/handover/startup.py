"""Opens everything that a starting proxy listens on: handed over by another proxy, passed by systemd, or new."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial

import structlog
import trio

from control.base.reading.addresses import ADMIN_SOCKET, HANDOVER_SOCKET
from control.base.system.commanders import Commanders
from control.base.system.keptsocket import KeptSocket
from control.base.system.rundir import make_run_dir
from control.base.system.unixsock import group_number
from proxy.agent.drain import Drain
from proxy.agent.handover.activation import PassedSockets
from proxy.agent.handover.inheritance import ADMIN, HANDOVER, TELEMETRY, InheritedListeners
from proxy.agent.handover.memoryshares import MemoryShares
from proxy.agent.handover.ownsocket import OwnSocket
from proxy.agent.handover.predecessors import Predecessors
from proxy.agent.handover.receiver import Predecessor
from proxy.agent.handover.scrapelistener import ScrapeListener
from proxy.agent.handover.sockets import HandoverSockets
from proxy.config.schema import Config
from proxy.errors import StartError
from proxy.links.device import LinkDevice
from proxy.links.listening import LinkListeners
from proxy.mesh.statelock import StateLock
from proxy.outbound.upstreams import Outbound

log = structlog.get_logger()

OWN_MODE, GROUP_MODE = 0o600, 0o660
"""Of the proxy's own sockets: for its user alone, or for the group of ``admin.group``, too."""


class StartupListeners:
    """The open listeners of a starting proxy, made by `open_listeners`. Nothing is accepted on them yet.

    Attributes:
        handover_sockets: all of them, to be handed over later.
        commanders: who may command at the admin socket; successors: who may take this proxy's place.
        predecessors: the processes whose place was taken and which still let their streams finish.
        scrape: that of telemetry.listen, if there is one.
        links: the listeners for links; own: the proxy's own sockets, by what they are for. There are listeners after
            `replace` only.
    """

    def __init__(
        self,
        handover_sockets: HandoverSockets,
        commanders: Commanders,
        successors: Commanders,
        run_dir: str,
        links: LinkListeners,
        own: Mapping[str, OwnSocket],
        inheritance: InheritedListeners,
        predecessor: Predecessor | None,
        predecessors: Predecessors,
        state: StateLock | None,
        scrape: ScrapeListener | None,
        moved: str | None,
    ) -> None:
        self._state, self.scrape, self._moved = state, scrape, moved
        self.handover_sockets, self.commanders, self.successors = handover_sockets, commanders, successors
        self.links, self.own = links, own
        self._inheritance, self._predecessor = inheritance, predecessor
        self._run_dir, self.predecessors = run_dir, predecessors

    @property
    def takes_over(self) -> bool:
        """Whether there is another proxy whose place this one takes."""
        return self._predecessor is not None

    def failing(self) -> list[str]:
        """A line for each socket, those of upstreams excepted, at which this machine cannot accept for now, and why."""
        gates = {"links.listen": self.handover_sockets.links_gate}
        gates.update((own.kept.address, own.gate) for own in self.own.values())
        if self.scrape is not None:
            gates["telemetry.listen"] = self.scrape.gate
        found = [(where, why) for where, gate in gates.items() for why in sorted({*gate.failing.values()})]
        return [f"{where}: cannot accept a connection: {why}" for where, why in found]

    async def replace(self, outbound: Outbound, seconds: float) -> None:
        """This proxy is ready: take the place of the other one, if there is one. Its streams then have `seconds` to
        finish. Raises StartError: the other one goes on, or it has ended and removed its sockets' files;
        PredecessorEnded: it has ended, and kept its sockets.
        """
        if self._predecessor is not None:
            alive = await self._predecessor.replace(seconds, self._state)
            if not alive and not (self._inheritance.in_place and all(each.in_place for each in outbound.sockets.all)):
                # It was about to stop, had removed its files and was then killed.
                raise StartError("the proxy to take over from has ended, and its sockets with it: start without it")
            self._inheritance.own()
            self._inheritance.discard()
            if self._state is not None:
                self._state.before = self._predecessor.secret
                self._state.own()
            log.info("proxy taken over", from_pid=self._predecessor.pid)
            if self._moved is not None:
                why = "in a static mesh other hosts do not hear of it: change it in their peers"
                log.warning("another links address", before=self._moved, error=why)
        outbound.sockets.own()
        self.links.use()
        for own in self.own.values():
            own.use()
        if self.scrape is not None:
            self.scrape.use()
        self.predecessors.find(self._run_dir)
        self.predecessors.bound()


async def open_listeners(
    config: Config,
    instance: str,
    outbound: Outbound,
    drain: Drain,
    device: LinkDevice,
    memory: MemoryShares,
    tell: Callable[[str], None],
    *,
    takeover: bool,
    passed: PassedSockets,
    kept: Callable[[], Iterable[tuple[str, socket.socket]]],
    files: ExitStack,
    state: StateLock | None = None,
) -> StartupListeners:
    """Open all listening sockets, those of `outbound` included; `files` closes them.

    Args:
        instance: this process, as HELLO names it.
        device: what the listeners for links are bound to.
        memory: what this process may hold.
        tell: tells systemd (`notify.Notices`).
        takeover: whether to take the place of a proxy that runs in the same run_dir.
        passed: the sockets of systemd; kept: returns those of another store, with their names, which are then the
            callee's, and may block. Only asked if no proxy hands its own over.
        state: the lock of the state_dir, which the other proxy may hold until now.

    Raises StartError, and ConfigError for sockets of systemd that match nothing in the configuration.
    """
    inheritance = InheritedListeners()
    files.callback(inheritance.close)
    passed.inherit(config, inheritance)
    predecessor = None
    if takeover:
        predecessor = await Predecessor.meet(f"{config.run_dir}/{HANDOVER_SOCKET}", config.host, inheritance)
        if predecessor is None:
            log.info("nobody to take over from", run_dir=config.run_dir)
        else:
            files.callback(predecessor.close)
        if state is not None and predecessor is not None:
            state.expect(predecessor.lock, predecessor.pid)
        elif state is not None:
            state.inherit(None, None)
    if predecessor is None:
        passed.adopt(config, await trio.to_thread.run_sync(kept), inheritance)
    group = group_number("admin.group", config.admin.group)
    make_directory = partial(make_run_dir, config.run_dir, group)
    make_directory()
    commanders = Commanders(group, config.admin.origin == "any")
    mode = OWN_MODE if group is None else GROUP_MODE
    own: dict[str, OwnSocket] = {}

    def open_own(kind: str, path: str, mode: int, group: int | None, prepare: Callable[[], None]) -> None:
        kept = KeptSocket(inheritance.unix(kind, path, mode, group), mode=mode, group=group, prepare=prepare)
        files.callback(kept.close)
        own[kind] = OwnSocket(kind, kept)

    open_own(ADMIN, f"{config.run_dir}/{ADMIN_SOCKET}", mode, group, make_directory)
    open_own(HANDOVER, f"{config.run_dir}/{HANDOVER_SOCKET}", OWN_MODE, None, make_directory)
    if config.telemetry.socket is not None:
        monitors = group_number("telemetry.group", config.telemetry.group)
        open_own(TELEMETRY, config.telemetry.socket, config.telemetry.mode, monitors, lambda: None)
    scrape = None
    if config.telemetry.listen is not None:
        scrape = ScrapeListener(config.telemetry.listen, inheritance.scrape(config.telemetry.listen))
        files.callback(scrape.close)
    links = LinkListeners(config.links.listen, device)
    files.callback(links.close)
    links.open(inheritance.links(config.links.listen))
    moved = None
    if predecessor is not None and config.control is None:
        moved = ", ".join(inheritance.links_elsewhere()) or None
    files.callback(outbound.close)
    outbound.sockets.inherit(inheritance.upstreams())
    outbound.open()
    predecessors = inheritance.predecessors()
    successors = Commanders(None, config.takeover.origin == "any", "takeover.from")
    handover_sockets = HandoverSockets(
        config.host,
        instance,
        config.run_dir,
        outbound=outbound,
        drain=drain,
        address=config.links.listen,
        links=links,
        own=list(own.values()),
        scrape=scrape,
        predecessors=predecessors,
        successors=successors,
        memory=memory,
        tell=tell,
        state=state,
    )
    files.callback(handover_sockets.close)
    return StartupListeners(
        handover_sockets,
        commanders,
        successors,
        config.run_dir,
        links,
        own,
        inheritance,
        predecessor,
        predecessors,
        state,
        scrape,
        moved,
    )
