"""The attach service: containers get interfaces of this host's as their labels ask (`hostlane.attach`), at every start.

It is apart from the door, and in the host's network namespace, since it needs CAP_NET_ADMIN there. What it gives is
what `hostlane net attach` gives. As long as anything is open in the namespace that a container had before, its
interface is there, too, and holds MAC and address: the new one cannot be made until door and proxy have closed
everything, so that it is tried until then. Addresses that were leased are given back when their containers are no more
(`proxy.door.returning`).
"""

from __future__ import annotations

import random
import signal

import structlog
import trio

from control.base.backoff import Backoff
from proxy.config.interfaces import ContainerInterfaceConfig
from proxy.config.netvalues import AUTO
from proxy.config.schema import Config, DoorConfig
from proxy.door import labels, namespaces
from proxy.door.desired import Container, shared
from proxy.door.door import RECONCILE, make_directory
from proxy.door.engine import Engine, EngineEvent
from proxy.door.following import follow
from proxy.door.presence import hold
from proxy.door.returning import LeaseReturns
from proxy.errors import NetError
from proxy.netdev import attachcommands
from proxy.netdev.apply.containers import AttachTarget
from proxy.netdev.leases.leases import segment_of

log = structlog.get_logger()

PAUSE, LONGEST_PAUSE = 0.05, 5.0
"""Seconds: windows of the pause before it is tried again (`control.base.backoff`)."""
PATIENCE = 3.0
"""Seconds until it is said that it cannot be: door and proxy have closed everything by then."""


class AttachService:
    """See the module's text. `run` runs it."""

    def __init__(self, config: Config, door: DoorConfig) -> None:
        self._config, self._door = config, door
        self._under_way: dict[str, tuple[str, trio.CancelScope]] = {}
        self._one = trio.Lock()
        self._problems: dict[str, str] = {}
        self._returns = LeaseReturns(config, door, self._one)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until SIGTERM or SIGINT; containers keep what they have got. Raises StartError."""
        make_directory(self._door)
        with hold(self._door.directory), trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery, Engine(self._door.engine) as engine:

                async def look() -> None:
                    for id in await engine.containers():
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

    async def _look(self, engine: Engine, id: str, nursery: trio.Nursery) -> None:
        """Attach, unless that has been done since the container's last start."""
        found = await engine.inspect(id)
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
            steps = [str(step.do) for step in plan.steps]
            log.info("container attached", container=container.name, parent=parent, steps=steps, notes=[*notes])

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
