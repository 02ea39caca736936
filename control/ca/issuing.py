"""Certificates of the mesh, by the CA that is in force according to the store and whose key is on this server.

What is issued is written to the store (``certificates/<serial>``, for as long as it is valid) before it is handed out,
in a commit that fails if the CA has changed meanwhile: so nothing is valid that a rotation or revocation does not see.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from time import time
from typing import NamedTuple

import msgspec
import structlog
import trio
from msgspec import Struct

from control.api import certificates
from control.api.identity import BACKDATED
from control.api.mesh import CaBundle
from control.base import wallclock
from control.base.errors import HostlaneError, RequestRefused, StartError
from control.base.reading.times import when
from control.base.wallclock import ClockWatch
from control.ca import castate
from control.ca import root as ca
from control.ca.castate import CaState, KnownRoot
from control.ca.keyfiles import KeyFiles
from control.ca.trust import REVOKED
from control.store.base import Compacted, Condition, Conflict, Item, LeaseGone, Put, Store, StoreError, find_one

log = structlog.get_logger()

DAY = 86400.0
CERTIFICATES = "certificates/"
ATTEMPTS = 8
"""Commits that are tried when others come in between; two steps of a rotation never take so many."""
RETRY = 5.0
"""Seconds until this server's own certificate is tried again after a failure."""
UNRECORDED = 3600.0
"""Seconds that a certificate of this server's own is valid, and how close to its end the one before must be, when the
store takes no record of it (its disk is full): without one the server could not tell the hosts anything."""


class CertificateRecord(Struct, frozen=True, kw_only=True):
    """What the store has under ``certificates/<serial>``.

    Attributes:
        host: ``control/<name>`` for a control server's own.
        issuer: id of the CA.
    """

    host: str
    issued: float
    expires: float
    issuer: str


class ServerCertificate(NamedTuple):
    """A control server's own: PEM texts (certificate; private key; the CAs in force, for its clients' certificates),
    when it was issued and the end of its validity, seconds since 1970; `recorded`: the store knows it."""

    certificate: str
    key: str
    bundle: str
    issued: float
    not_after: float
    recorded: bool = True


class ClientCertificate(NamedTuple):
    """The certificate that a host has shown: `serial` in lower-case hex, `expires` in seconds since 1970, `issuer` as
    `control.ca.root.issuer_of` has it."""

    host: str
    serial: str
    expires: float
    issuer: bytes

    @property
    def keys(self) -> tuple[str, str, str]:
        """Keys of the store's items that say whether the certificate counts (`Issuer.standing`)."""
        return f"{CERTIFICATES}{self.serial}", f"{REVOKED}{self.serial}", castate.KEY


class CertificateGuard(NamedTuple):
    """What goes into a commit that a host gets by its certificate: conditions that fail once it is revoked, and the
    certificate itself, if the store does not know it."""

    when: tuple[Condition, ...]
    put: tuple[Put, ...] = ()


class Issuer:
    """See the module's text.

    Args:
        lifetime: of certificates, seconds.
        now: seconds since 1970.
    """

    def __init__(
        self, store: Store, keys: KeyFiles, *, mesh: str, lifetime: float = DAY, now: Callable[[], float] = time
    ) -> None:
        self.mesh, self.lifetime = mesh, lifetime
        self._store, self._keys, self._now = store, keys, now

    async def open(self) -> None:
        """Once, before anything else: a store that knows no CA yet takes over those of `keys`.

        Raises StartError if there is none in either, or for another mesh, and for key files that are not as they should
        be.
        """
        self._keys.check()
        state, _ = await self.state()
        if state.mesh != self.mesh:
            raise StartError(f"the store is that of mesh {state.mesh}, this control server is for mesh {self.mesh}")
        if self._keys.key(state.issuing) is None:
            log.warning("this control server issues no certificates: it lacks the CA's key", ca=state.issuing)

    async def state(self) -> tuple[CaState, int]:
        """Which CAs are in force, and the revision of the item that says so. Raises StartError (see `open`)."""
        for _ in range(ATTEMPTS):
            item = await find_one(self._store, castate.KEY)
            if item is not None:
                return _decoded(item), item.revision
            with suppress(Conflict):  # another server was faster
                state = self._adopted()
                await self._store.commit(
                    when=[Condition(castate.KEY, 0)], put=[Put(castate.KEY, castate.encode(state))]
                )
                log.info("the store knew no CA; it has this server's now", ca=state.issuing)
        raise StoreError(f"the store's {castate.KEY} comes and goes")

    async def authorities(self) -> CaBundle:
        """The CA certificates in force (``GET /v1/ca``)."""
        state, _ = await self.state()
        return CaBundle(mesh=state.mesh, bundle=state.bundle)

    async def issue(
        self,
        public_key: certificates.PublicKey,
        names: ca.CertificateNames,
        holder: str,
        *,
        when: Sequence[Condition] = (),
        put: Sequence[Put] = (),
        any_root: bool = False,
    ) -> tuple[ca.IssuedCertificate, CaState]:
        """A certificate, which is in force from now on, and the CAs that were when it was issued.

        Args:
            holder: for the store (`CertificateRecord.host`).
            when, put: committed with it.
            any_root: if the CA that issues has no key here, another one in force will do (for this server itself).

        Raises Conflict if one of `when` does not hold, RequestRefused (503 ``no_key``), and StoreError.
        """
        for _ in range(ATTEMPTS):
            state, revision = await self.state()
            root = self._root(state, any_root)
            now = self._now()
            leaf = ca.issue(root, public_key, names, now, self.lifetime)
            record = CertificateRecord(host=holder, issued=math.floor(now), expires=leaf.not_after, issuer=root.id)
            lease = await self._store.grant(max(1.0, leaf.not_after - now))
            try:
                await self._store.commit(
                    when=[Condition(castate.KEY, revision), *when],
                    put=[Put(f"{CERTIFICATES}{leaf.serial}", msgspec.json.encode(record), lease), *put],
                )
                return leaf, state
            except Conflict as error:
                await self._give_back(lease)
                if error.key != castate.KEY or any(condition.key == castate.KEY for condition in when):
                    raise
        raise StoreError("the CAs in force change all the time")

    async def standing(self, shown: ClientCertificate, found: Sequence[Item | None]) -> CertificateGuard:
        """The guard of a commit by this certificate. `found`: the items of `shown.keys`.

        A certificate that the store does not know was issued by hand, or after the copy was made that the store was
        restored from. The guard enters it, since nobody can revoke what the store does not know. Raises RequestRefused
        (403 ``revoked``, ``expired``, ``dropped``).
        """
        known, revoked, cas = found
        if known is not None and revoked is None:
            return CertificateGuard((Condition(known.key, known.revision),))
        key, revoked_key, _ = shown.keys
        roots = () if cas is None else _decoded(cas).roots
        root = next((root for root in roots if _issuer_of(root) == shown.issuer), None)
        now = self._now()
        what = f"this certificate of host {shown.host}"
        if revoked is not None:
            raise RequestRefused(403, "revoked", f"{what} has been revoked")
        if shown.expires <= now:
            raise RequestRefused(403, "expired", f"{what} has expired: on {when(shown.expires)}")
        if root is None:
            raise RequestRefused(403, "dropped", f"{what} is of a CA that is no longer in force")
        assert cas is not None
        issued = min(math.floor(now), shown.expires - self.lifetime)
        record = CertificateRecord(host=shown.host, issued=issued, expires=shown.expires, issuer=root.id)
        lease = await self._store.grant(max(1.0, shown.expires - now))
        return CertificateGuard(
            (Condition(key, 0), Condition(revoked_key, 0), Condition(cas.key, cas.revision)),
            (Put(key, msgspec.json.encode(record), lease),),
        )

    async def enter(self, shown: ClientCertificate, standing: CertificateGuard) -> None:
        """Commit the guard by itself, if the store does not know the certificate; if others were faster, do nothing."""
        if standing.put:
            try:
                await self._store.commit(when=standing.when, put=standing.put)
                self.committed(shown, standing)
            except (Conflict, LeaseGone):
                await self.withdraw(standing)

    @staticmethod
    def committed(shown: ClientCertificate, standing: CertificateGuard) -> None:
        """The commit that has this guard has happened: log a certificate that it has entered."""
        if standing.put:
            good = when(shown.expires)
            log.warning(
                "a certificate that the store did not know",
                kind=(shown.host,),
                host=shown.host,
                serial=shown.serial,
                expires=good,
            )

    async def withdraw(self, standing: CertificateGuard) -> None:
        """The commit that has this guard has not happened, and will not: give the guard's leases back."""
        for item in standing.put:
            await self._give_back(item.lease)

    async def keep_certificate(
        self,
        name: str,
        use: Callable[[ServerCertificate], None],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Have the certificate of the control server `name` in use until cancelled: `use` is called before `started`,
        and again with each new one (at half-life by the wall clock, whatever becomes of that, and when the CAs have
        changed).

        Raises StartError, before it has started, if this server has the key of no CA in force; and StoreError then, if
        the store cannot be read.
        """
        try:
            current, revision = await self._own(name, None)
        except RequestRefused as error:
            raise StartError(str(error)) from None
        use(current)
        task_status.started()
        complained, clock = "", ClockWatch(self._now)
        while True:
            try:
                if current.recorded:
                    await self._until_due(current, revision, clock)
                else:
                    await trio.sleep(RETRY)
                renewed, revision = await self._own(name, current)
                if renewed is not current:
                    current = renewed
                    use(current)
                if current.recorded:
                    complained = ""
            except HostlaneError as error:
                if str(error) != complained:
                    complained = str(error)
                    good = when(current.not_after)
                    log.error(
                        "no new certificate for this control server, the old one stays", error=complained, until=good
                    )
                await trio.sleep(RETRY)

    async def _own(self, name: str, current: ServerCertificate | None) -> tuple[ServerCertificate, int]:
        """The next certificate of this server. If the store can be read and not written to, and the `current` one does
        not last, one that the store does not know.
        """
        key, names = certificates.new_key(), ca.CertificateNames.control(self.mesh, name)
        revision = (await self._store.read(castate.KEY)).revision
        now, recorded = self._now(), True
        try:
            leaf, state = await self.issue(key.public_key(), names, f"control/{name}", any_root=True)
        except StoreError as error:
            if current is not None and current.issued - BACKDATED <= now < current.not_after - UNRECORDED / 2:
                if current.recorded:
                    raise
                return current, revision
            state, _ = await self.state()
            recorded = False
            leaf = ca.issue(self._root(state, True), key.public_key(), names, now, min(UNRECORDED, self.lifetime))
            good = when(leaf.not_after)
            log.warning("the store does not record this control server's certificate", error=str(error), until=good)
        for gone in state.dropped:
            self._keys.retire(gone)
        text, secret = leaf.certificate, certificates.key_pem(key)
        return ServerCertificate(text, secret, state.bundle, now, leaf.not_after, recorded), revision

    async def _until_due(self, current: ServerCertificate, revision: int, clock: ClockWatch) -> None:
        """Until half-life, or until the CAs have changed since `revision`; or the clock was set to before it was
        issued, so that it is not valid yet.
        """
        due = current.not_after - self.lifetime / 2
        with suppress(Compacted):  # then it has changed, perhaps
            async with self._store.watch(castate.KEY, revision) as commits:
                while current.issued - BACKDATED <= (now := self._now()) < due:
                    with trio.move_on_after(min(due - now, wallclock.LOOK)):
                        await commits.receive()
                        return
                    if jump := clock.jump():
                        log.warning("the wall clock has jumped", seconds=round(jump))

    def _adopted(self) -> CaState:
        """For a store that began empty: the CAs that this server has files of.

        If there are several, the store was lost in the middle of a rotation; the oldest is the one that every host
        trusts.
        """
        roots = [root for root in self._keys.roots() if root.not_valid_after_utc.timestamp() > self._now()]
        if not roots:
            raise StartError(f"there is no CA in {self._keys.directory}; hostlane control init makes one")
        for root in roots:
            if (mesh := ca.mesh_of(root)) not in (None, self.mesh):
                raise StartError(f"{self._keys.directory}: a CA of mesh {mesh}; this control server is for {self.mesh}")
        known = tuple(KnownRoot(id=ca.root_id(root), certificate=certificates.pem(root)) for root in roots)
        return CaState(mesh=self.mesh, roots=known, issuing=known[0].id)

    def _root(self, state: CaState, any_root: bool) -> ca.RootCa:
        for known in sorted(state.roots, key=lambda root: root.id != state.issuing):
            if (key := self._keys.key(known.id)) is not None:
                return ca.RootCa(certificates.read_roots(known.certificate)[0], key)
            if not any_root:
                break
        log.error("no certificate issued: this control server lacks the CA's key", kind=(), ca=state.issuing)
        text = f"this control server lacks the key of CA {state.issuing}; ask another one, or copy the key to it"
        raise RequestRefused(503, "no_key", text)

    async def _give_back(self, lease: int) -> None:
        with suppress(StoreError, LeaseGone):
            await self._store.revoke(lease)


def _decoded(item: Item) -> CaState:
    try:
        return castate.decode(item.value)
    except ValueError:
        raise StoreError(f"the store's {castate.KEY} is not one of this version") from None


@lru_cache(maxsize=8)
def _issuer_of(root: KnownRoot) -> bytes:
    """Kept: reading a certificate takes longer than registering a host takes otherwise."""
    return ca.issuer_of(certificates.read_roots(root.certificate)[0])
