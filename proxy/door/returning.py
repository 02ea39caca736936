"""Leased addresses of containers that are no more are given back.

A container keeps its address from one start to the next, and another one of that name gets it, too: who recreates one
(Compose) removes the old one first. So an address is given back when no container of that name has been there for
`GRACE`, and none that runs has the address: one that was renamed keeps what it got under its name before.
"""

from __future__ import annotations

from contextlib import suppress

import structlog
import trio

from control.api.mesh import AddressLease
from proxy.config.schema import Config, DoorConfig
from proxy.door import namespaces
from proxy.door.door import RECONCILE
from proxy.door.engine import Engine, Unanswered
from proxy.errors import NetError
from proxy.netdev.leases import addressbook
from proxy.netdev.leases.leases import ip_of
from proxy.netdev.observe import observe

log = structlog.get_logger()

GRACE = 10.0
"""Seconds without a container of that name."""


class LeaseReturns:
    """See the module's text. `run` runs it.

    Args:
        one: held while an address is given back, and by whoever attaches, so that nobody leases it meanwhile.
    """

    def __init__(self, config: Config, door: DoorConfig, one: trio.Lock) -> None:
        self._config, self._door, self._one = config, door, one
        self._since: dict[str, float] = {}
        self._said: dict[str, str] = {}
        self._woken = trio.Event()

    def wake(self) -> None:
        """A container was removed: look soon."""
        self._woken.set()

    async def run(self, engine: Engine) -> None:
        """Look whenever it is worth it, until cancelled; at once without a control plane, which leases addresses."""
        while self._config.control is not None:
            self._woken, pause = trio.Event(), RECONCILE
            with suppress(Unanswered):  # whoever follows the engine says so
                if await self.look(engine):
                    pause = GRACE
            with trio.move_on_after(pause):
                await self._woken.wait()

    async def look(self, engine: Engine) -> bool:
        """Give back what is due. Returns whether any container of a lease is missing. Raises Unanswered."""
        held = await trio.to_thread.run_sync(addressbook.files_of(self._config).parts)
        if not held:
            self._since.clear()
            return False
        names = await engine.names()  # those that have come since the files were read are among them
        missing = [lease for lease in held if _owner(lease) not in names and not _owner(lease).startswith("pid-")]
        now = trio.current_time()
        self._since = {lease.part: self._since.get(lease.part, now) for lease in missing}
        for lease in missing:
            if now - self._since[lease.part] >= GRACE:
                async with self._one:
                    await self._give_back(engine, lease)
        return bool(self._since)

    async def _give_back(self, engine: Engine, lease: AddressLease) -> None:
        names = await engine.names()
        if _owner(lease) in names or await self._used(engine, [*names.values()], ip_of(lease)):
            return
        try:
            await addressbook.give_back_one(self._config, lease)
        except NetError as error:
            if self._said.get(lease.part) != str(error):
                self._said[lease.part] = str(error)
                log.warning("an address is not given back yet", container=_owner(lease), error=str(error))
            return
        del self._since[lease.part]
        self._said.pop(lease.part, None)
        log.info("address given back", container=_owner(lease), address=lease.address)

    async def _used(self, engine: Engine, ids: list[str], ip: str) -> bool:
        """Whether a container that runs has the address, or it cannot be known."""
        for id in ids:
            found = await engine.inspect(id)
            if found is None or not found.running or not found.namespace:
                continue
            path = f"{self._door.namespaces}/{found.namespace}"
            try:
                if ip in await trio.to_thread.run_sync(_addresses, path):
                    return True
            except (namespaces.NoNamespace, NetError):
                if namespaces.identity(path) is not None:  # else it has ended
                    return True
        return False


def _owner(lease: AddressLease) -> str:
    """The name that the container had when it got the lease; ``pid-NUMBER``: a process, which no engine knows."""
    return lease.part[1:].partition(":")[0]


def _addresses(namespace: str) -> set[str]:
    """Those of all interfaces in a namespace. Blocks. Raises NoNamespace, NetError."""
    return {each.address for each in namespaces.visit(namespace, observe.snapshot).addresses}
