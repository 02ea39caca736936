"""Registering, staying and leaving, carried out on the store (`control.server.registry` says what they mean)."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from control.api.mesh import AliveResponse, HostRecord, Namesake, RegisterRequest, RegisterResponse
from control.base.errors import RequestRefused
from control.base.reading import units
from control.ca.issuing import CertificateGuard, ClientCertificate, Issuer
from control.server import registry
from control.server.addressbook import AddressBook
from control.server.namesakes import Namesakes
from control.server.registry import HOSTS, LINKS, NAMESAKES, RegisteredHost, StoreTransaction
from control.server.servers import ControlServers
from control.store.base import Conflict, Item, LeaseGone, Put, Store, StoreError, find_one

__all__ = ["HostRegistry"]

log = structlog.get_logger()

ATTEMPTS = 8
"""Conflicts that one request takes. Only another request about the same host, or its old lease's end, makes one."""

AT_ONCE = 100
"""Keys that a removed host holds, freed in a commit (`store.base.OPERATIONS`)."""

REMEMBERED = 20_000
"""Hosts whose lease is known without asking the store; hosts that crash under a new name each time leave theirs."""

SIGNS_OF_LIFE = 2
"""A host counts as alive for the time in which it says so as often as this (every third of its lease at the latest):
with leases of 15 s for 10 s. (With several control servers, to the end of its lease.)"""
REFUSED = 30.0
"""Seconds that a refused namesake is remembered: it comes back within 10 s (`proxy.mesh.registration`), or up to 25 s
if no control server answers at first."""


class HostRegistry:
    """See the module's text. Methods raise RequestRefused (what the asker is told), and StoreError.

    Args:
        lease: seconds that a host stays on the map without being heard of.
        namesakes: whose watch is connected, and who was refused lately.
        servers: the other control servers.
    """

    def __init__(
        self,
        store: Store,
        book: AddressBook,
        issuer: Issuer,
        lease: float,
        namesakes: Namesakes | None = None,
        servers: ControlServers | None = None,
    ) -> None:
        self._namesakes = namesakes or Namesakes()
        self._servers = servers or ControlServers()
        self._store = store
        self._book = book
        self._issuer = issuer
        self._ttl = lease
        # Whose lease is whose, so that staying alive costs no read. A lease that is gone is noticed when it is kept.
        # Those heard of longest ago are forgotten first, which costs them a read.
        self._leases: OrderedDict[str, tuple[str, int]] = OrderedDict()

    async def register(self, request: RegisterRequest, shown: ClientCertificate, client: str = "") -> RegisterResponse:
        """Put a record in force, by the certificate that the host has shown, from the IP address `client` (400
        ``record``; 403 ``revoked``; 409 ``taken``, ``in_use``). Who is on the map can be revoked: the store
        knows that certificate from the same commit on.
        """
        record, secret = registry.check_record(request.record), request.secret
        for _ in range(ATTEMPTS):
            host, link, *found = await self._store.find(HOSTS + record.name, LINKS + record.address, *shown.keys)
            standing = await self._issuer.standing(shown, found)
            before = registry.namesake(request, host)
            if host is not None and before is not None and await self._is_alive(before, host.lease):
                await self._issuer.enter(shown, standing)
                other = Namesake(address=record.address, client=client, instance=record.instance)
                await self._note(other, before)
                raise registry.in_use(other, before)
            lease = await self._lease_for(record, host)
            kept = host is not None and host.lease == lease
            try:
                change = registry.register(record, lease, host, link, secret, client)
                revision = await self._commit(change, standing)
            except (Conflict, LeaseGone):
                await self._issuer.withdraw(standing)
                if not kept:
                    await self._store.revoke(lease)
                continue
            except RequestRefused:
                if not kept:
                    await self._store.revoke(lease)
                # It is not on the map, and can be revoked all the same.
                await self._issuer.enter(shown, standing)
                raise
            self._issuer.committed(shown, standing)
            self._remember(record.name, record.instance, lease)
            if host is not None and not kept:
                # Nothing hangs on it any more, and the old process learns from its end that it has been replaced.
                await self._store.revoke(host.lease)
            if not kept:
                name, count = record.name, len(record.services)
                log.info("host registered", kind=(name,), host=name, address=record.address, services=count)
            return RegisterResponse(epoch=self._store.epoch, revision=revision, lease=self._ttl)
        raise RequestRefused(503, "busy", f"host {record.name} is registered from several places at once; try again")

    async def alive(self, name: str, instance: str) -> AliveResponse:
        """An instance of a host is still there (404 ``unknown_host``; 409 ``superseded``)."""
        await self._keep(name, instance)
        return AliveResponse(namesake=self._namesakes.refused(name, instance), now=time.time())

    async def _keep(self, name: str, instance: str) -> None:
        known = self._leases.get(name)
        if known is not None and known[0] == instance:
            try:
                await self._store.keep_alive(known[1])
                self._remember(name, *known)
                return
            except LeaseGone:
                self._leases.pop(name, None)
        lease = registry.holding(name, instance, await find_one(self._store, HOSTS + name))
        try:
            await self._store.keep_alive(lease)
        except LeaseGone:
            registry.holding(name, instance, None)
        self._remember(name, instance, lease)

    async def leave(self, name: str, instance: str) -> None:
        """An instance of a host goes, at once. Fine if it is gone, or another one's by now."""
        if self._namesakes.was_refused(name, instance):
            await self._store.commit(delete=[NAMESAKES + name])
        host = await self._retried(lambda: self._remove(name, lambda item: registry.leave(instance, item)))
        if host is not None:
            log.info("host left", kind=(name,), host=name)

    async def remove(self, name: str) -> None:
        """Take a host off the map and free its addresses, at once (400 ``host``; 404 ``unknown_host``)."""
        try:
            units.host_name(name)
        except ValueError as error:
            raise RequestRefused(400, "host", f"host: {error}") from None
        held = await self._book.keys_of(name)
        freed = len(held)
        # Containers have addresses too, and a commit has its bounds. The host goes with the last ones: it asks for its
        # addresses again as soon as it is off the map, and then must find nothing that is about to go.
        while len(held) > AT_ONCE:
            await self._store.commit(delete=held[:AT_ONCE])
            held = held[AT_ONCE:]
        host = await self._retried(
            lambda: self._remove(name, lambda item: None if item is None else registry.remove(item, held))
        )
        if host is None:
            if not held:
                raise RequestRefused(404, "unknown_host", f"no host {name} on the map, and no address that it holds")
            await self._store.commit(delete=held)
        log.info("host removed", host=name, freed=freed)

    async def _remove(self, name: str, decide: Callable[[Item | None], StoreTransaction | None]) -> Item | None:
        host = await find_one(self._store, HOSTS + name)
        change = decide(host)
        if host is None or change is None:
            return None
        await self._commit(change)
        self._leases.pop(name, None)
        await self._store.revoke(host.lease)
        return host

    async def _retried(self, attempt: Callable[[], Awaitable[Item | None]]) -> Item | None:
        for _ in range(ATTEMPTS):
            try:
                return await attempt()
            except (Conflict, LeaseGone):
                continue
        raise RequestRefused(503, "busy", "the host is registered from several places at once; try again")

    async def _is_alive(self, host: RegisteredHost, lease: int) -> bool:
        """Whether a host is not only on the map, but there: its watch is connected, or it was heard of lately. Whether
        its watch is at another control server is not known here: where there are others, it may be.
        """
        if self._namesakes.watches(host.name, host.instance):
            return True
        try:
            unheard = await self._store.unheard(lease)
            return unheard < SIGNS_OF_LIFE * self._ttl / 3 or not self._servers.alone
        except LeaseGone:
            return False

    async def admit(self, name: str, secret: str, client: str) -> None:
        """Refuse (409 ``in_use``) to give what the host has to another proxy of its name while the host is alive. Who
        shows no secret is of an earlier version.
        """
        host = await find_one(self._store, HOSTS + name) if secret else None
        if host is None or not registry.is_stranger(before := registry.decode_host(host), secret):
            return
        if await self._is_alive(before, host.lease):
            other = Namesake(address="", client=client, instance="")
            await self._note(other, before)
            raise registry.in_use(other, before)

    async def _note(self, other: Namesake, host: RegisteredHost) -> None:
        """Have a host that is alive told of the `other` proxy that is refused, whichever control server it asks."""
        key, value = NAMESAKES + host.name, msgspec.json.encode(other)
        try:
            noted = await find_one(self._store, key)
            if noted is not None and noted.value == value:
                return await self._store.keep_alive(noted.lease)
            # Summarised: whoever has a certificate of that name may say each time that it is somebody else.
            log.warning(
                "two proxies of one name", kind=(host.name,), host=host.name, at=str(host.place), refused=str(other)
            )
            await self._store.commit(put=[Put(key, value, await self._store.grant(REFUSED))])
        except (StoreError, LeaseGone) as error:
            # It is refused all the same, and comes back.
            log.debug("a namesake is not noted", host=host.name, error=str(error))

    async def _lease_for(self, record: HostRecord, host: Item | None) -> int:
        """The lease that this instance has, or a new one."""
        if host is not None and registry.decode_record(host).instance == record.instance:
            try:
                await self._store.keep_alive(host.lease)
                return host.lease
            except LeaseGone:
                pass
        return await self._store.grant(self._ttl)

    def _remember(self, name: str, instance: str, lease: int) -> None:
        self._leases[name] = (instance, lease)
        self._leases.move_to_end(name)
        if len(self._leases) > REMEMBERED:
            self._leases.popitem(last=False)

    async def _commit(self, change: StoreTransaction, standing: CertificateGuard | None = None) -> int:
        when, put = change.when, change.put
        if standing is not None:
            when, put = (*when, *standing.when), (*put, *standing.put)
        return await self._store.commit(when=when, put=put, delete=change.delete)
