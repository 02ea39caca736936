"""The attach service: containers get interfaces of this host's as their labels ask (`hostlane.attach`), at every start.

It is apart from the door, and in the host's network namespace, since it needs CAP_NET_ADMIN there. What it gives is
what `hostlane net attach` gives, and it takes that away when the container has ended: as long as anything is open in a
namespace, be it a Unix socket that a proxy has left to the door or to the process that took its place, the interface
would be there, and hold MAC and address. So it keeps each namespace open until then. Where it was away meanwhile, the
new interface cannot be made until all that is closed: it is tried until then. Addresses that were leased are given back
when their containers are no more (`proxy.door.returning`).
"""

from __future__ import annotations

import os
import random
import signal
from collections import deque
from typing import NamedTuple

import structlog
import trio

from control.base.backoff import Backoff
from proxy.config.interfaces import ContainerInterfaceConfig
from proxy.config.netvalues import AUTO
from proxy.config.schema import Config, DoorConfig
from proxy.door import labels, namespaces
from proxy.door.desired import Container, shared
from proxy.door.door import LOOK, RECONCILE, make_directory
from proxy.door.engine import Engine, EngineEvent
from proxy.door.following import follow
from proxy.door.presence import hold
from proxy.door.returning import LeaseReturns
from proxy.errors import NetError
from proxy.netdev import attachcommands
from proxy.netdev.apply import containers
from proxy.netdev.apply.containers import AttachTarget
from proxy.netdev.leases.leases import segment_of

log = structlog.get_logger()

PAUSE, LONGEST_PAUSE = 0.05, 5.0
"""Seconds: windows of the pause before it is tried again (`control.base.backoff`)."""
PATIENCE = 3.0
"""Seconds until it is said that it cannot be: door and proxy have closed everything by then."""


class AttachedNamespace(NamedTuple):
    """The network namespace of a container that has its interface; `descriptor` is its owner's to close."""

    descriptor: int
    path: str
    file: tuple[int, int]
    container: str


class AttachService:
    """See the module's text. `run` runs it."""

    def __init__(self, config: Config, door: DoorConfig) -> None:
        self._config, self._door = config, door
        self._under_way: dict[str, tuple[str, trio.CancelScope]] = {}
        self._attached: dict[str, AttachedNamespace] = {}
        self._over, self._some_over = deque[AttachedNamespace](), trio.Event()
        self._one = trio.Lock()
        self._problems: dict[str, str] = {}
        self._returns = LeaseReturns(config, door, self._one)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until SIGTERM or SIGINT; containers keep what they have got. Raises StartError."""
        make_directory(self._door)
        with hold(self._door.directory), trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery, Engine(self._door.engine) as engine:

                async def look() -> None:
                    before = frozenset(self._under_way)  # who starts while the engine answers is not in its answer
                    found = await engine.containers()
                    for id in before.difference(found):
                        self._ended(id)
                    for id in found:
                        await self._look(engine, id, nursery)

                def happened(event: EngineEvent, looks: trio.Nursery) -> None:
                    if labels.ATTACH not in event.labels:
                        return
                    if event.action in ("die", "destroy"):
                        self._ended(event.id)
                        self._returns.wake()
                    elif event.action == "start":
                        looks.start_soon(self._look, engine, event.id, nursery)

                nursery.start_soon(follow, engine, self._door.engine, look, happened, RECONCILE)
                nursery.start_soon(self._returns.run, engine)
                nursery.start_soon(self._watch)
                nursery.start_soon(self._take_away)
                log.info("attach service ready", engine=self._door.engine)
                task_status.started()
                async for _ in signals:
                    break
                nursery.cancel_scope.cancel()
        log.info("attach service stopped")

    def _ended(self, id: str) -> None:
        self._problems.pop(id, None)
        if (found := self._under_way.pop(id, None)) is not None:
            found[1].cancel()
        if (attached := self._attached.pop(id, None)) is not None:
            self._over.append(attached)
            self._some_over.set()

    async def _watch(self) -> None:
        """Look whether namespaces are gone whose end nobody has told of: the engine is away, or has lost the event."""
        while True:
            await trio.sleep(LOOK)
            for id, attached in [*self._attached.items()]:
                if namespaces.identity(attached.path) != attached.file:
                    self._ended(id)

    async def _take_away(self) -> None:
        """Take from namespaces whose containers have ended what was given to them, until cancelled."""
        try:
            while True:
                await self._some_over.wait()
                self._some_over = trio.Event()
                while self._over:
                    attached = self._over[0]
                    async with self._one:
                        with trio.CancelScope(shield=True):  # it is done, or taken back, whole
                            await trio.to_thread.run_sync(self._take, attached)
                    os.close(self._over.popleft().descriptor)
        finally:
            for attached in (*self._over, *self._attached.values()):
                os.close(attached.descriptor)

    def _take(self, attached: AttachedNamespace) -> None:
        try:
            containers.take(self._config, attached.descriptor)
        except NetError as error:  # it goes with its namespace
            log.warning("an interface is not taken away", container=attached.container, error=str(error))

    async def _look(self, engine: Engine, id: str, nursery: trio.Nursery) -> None:
        """Attach, unless that has been done since the container's last start."""
        before = self._under_way.get(id)
        found = await engine.inspect(id)
        if self._under_way.get(id) is not before:
            return  # a later look has been answered first
        if found is None or not found.running:
            return self._ended(id)
        asked, _ = labels.read(found.labels)
        if not asked.attach:
            return
        if why := shared(found):
            return self._cannot(found, why)
        if not found.namespace or self._under_way.get(id, ("",))[0] == found.namespace:
            return
        self._ended(id)
        scope = trio.CancelScope()
        self._under_way[id] = found.namespace, scope
        nursery.start_soon(self._attach, found, asked.attach, scope)

    async def _attach(self, container: Container, parent: str, scope: trio.CancelScope) -> None:
        target = AttachTarget(
            name=container.name, pid=None, namespace=f"{self._door.namespaces}/{container.namespace}"
        )
        backoff = Backoff(random.random, start=PAUSE, ceiling=LONGEST_PAUSE)
        since = trio.current_time()
        with scope:
            while True:
                try:
                    wanted = wants(self._config, container.name, parent)
                    async with self._one:
                        with trio.CancelScope(shield=True):  # it is done, or taken back, whole
                            plan, notes = await trio.to_thread.run_sync(self._work, target, wanted)
                    if plan.problems:
                        raise NetError("; ".join(plan.problems))
                except NetError as error:
                    if trio.current_time() - since >= PATIENCE:
                        self._cannot(container, str(error))
                else:
                    break
                await trio.sleep(backoff.next())
            self._problems.pop(container.id, None)
            self._hold(container, str(target.namespace), scope)
            steps = [str(step.do) for step in plan.steps]
            log.info("container attached", container=container.name, parent=parent, steps=steps, notes=[*notes])

    def _hold(self, container: Container, path: str, scope: trio.CancelScope) -> None:
        """Keep the container's namespace open until it has ended; `scope` is cancelled if it has by now."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return  # it has ended by now, or cannot be kept: the interface goes with its namespace
        found = os.fstat(descriptor)
        file = found.st_dev, found.st_ino
        held = AttachedNamespace(descriptor, path, file, container.name)
        if scope.cancel_called:  # what is under way by now is of its next start
            self._over.append(held)
            self._some_over.set()
        else:
            self._attached[container.id] = held

    def _work(self, target: AttachTarget, wanted: ContainerInterfaceConfig) -> attachcommands.Done:
        if namespaces.identity(str(target.namespace)) is None:
            raise NetError(f"{target.namespace}: there is no such namespace (door.namespaces, mounted ro,rslave)")
        return attachcommands.attach(self._config, target, wanted)

    def _cannot(self, container: Container, why: str) -> None:
        """Say it, once."""
        if self._problems.get(container.id) != why:
            self._problems[container.id] = why
            log.error("not as its labels ask", error=f"container {container.name}: {labels.ATTACH}: {why}")


def wants(config: Config, container: str, parent: str) -> ContainerInterfaceConfig:
    """What the container gets: what the configuration says of it, or a macvlan child with an address that the control
    plane leases. Raises NetError.
    """
    found = config.containers.get(container)
    if found is None:
        found = ContainerInterfaceConfig(parent=parent, addresses=(AUTO,))
        if config.control is None or segment_of(config, found) is None:
            leased = "a control plane (control) and links.segment, for an address that it leases"
            raise NetError(f"the configuration has no containers.{container}; allowed: that, or {leased}")
    if found.parent != parent:
        raise NetError(f"found {parent}, and in the configuration containers.{container}.parent: {found.parent}")
    return found
