"""A new CA in place of an old one, in three steps between which nobody is refused: add, activate, drop.

Every method raises RequestRefused (what the administrator is told), and StoreError.
"""

from __future__ import annotations

from collections.abc import Callable
from time import time

import msgspec
import structlog

from control.api import certificates
from control.api.mesh import CaRoot, CaStatus
from control.base.errors import RequestRefused, StartError
from control.base.reading.times import when
from control.ca import castate
from control.ca.castate import CaState, KnownRoot
from control.ca.issuing import CERTIFICATES, CertificateRecord, Issuer
from control.ca.keyfiles import KeyFiles
from control.store.base import Condition, Conflict, Put, Store, StoreError

log = structlog.get_logger()

SHOWN = 5
"""Hosts named in an error."""


class CaRotation:
    """See the module's text. `now`: seconds since 1970."""

    def __init__(self, store: Store, keys: KeyFiles, *, mesh: str, now: Callable[[], float] = time) -> None:
        self._store, self._keys, self._now = store, keys, now
        self._issuer = Issuer(store, keys, mesh=mesh, now=now)

    async def status(self) -> CaStatus:
        """The CAs in force, who issues, which keys this server has, and what still hangs on each."""
        state, _ = await self._issuer.state()
        found = await self._certificates()
        newest: dict[str, CertificateRecord] = {}
        for each in sorted(found, key=lambda each: each.issued):
            newest[each.host] = each
        return CaStatus(
            mesh=state.mesh,
            roots=tuple(
                _status(root, state, self._keys.key(root.id) is not None, found, newest)
                for root in sorted(state.roots, key=lambda root: root.id != state.issuing)
            ),
        )

    async def add(self) -> CaStatus:
        """A new CA, its key on this server, joins the bundle; the old one goes on issuing (409 ``in_rotation``; 503
        ``files`` if its files cannot be written).
        """
        state, revision = await self._issuer.state()
        castate.add(state, KnownRoot(id="", certificate=""))
        try:
            root = self._keys.add(state.mesh, self._now())
        except StartError as error:
            raise RequestRefused(503, "files", str(error)) from None
        try:
            known = KnownRoot(id=root.id, certificate=certificates.pem(root.certificate))
            await self._commit(castate.add(state, known), revision)
        except BaseException:
            # The new CA was never in force, so nobody knows it: its files may go out of use.
            self._keys.retire(root.id)
            raise
        log.warning("CA added: hosts trust it from now on; the old one issues", ca=root.id, issuing=state.issuing)
        return await self.status()

    async def activate(self) -> CaStatus:
        """The new one issues, and hosts renew now (409 ``nothing_to_activate``; 503 ``no_key``)."""
        state, revision = await self._issuer.state()
        new = castate.activate(state, self._now())
        if self._keys.key(new.issuing) is None:
            text = f"this control server lacks the key of CA {new.issuing}; ask the one that has it, or copy it"
            raise RequestRefused(503, "no_key", text)
        await self._commit(new, revision)
        log.warning("CA activated: it issues from now on, and hosts renew", ca=new.issuing, before=state.issuing)
        return await self.status()

    async def drop(self, force: bool = False) -> CaStatus:
        """The one that does not issue leaves the bundle (409 ``nothing_to_drop``; 409 ``in_use`` while certificates
        that it issued are valid, unless forced).
        """
        state, revision = await self._issuer.state()
        new = castate.drop(state)
        old = next(root for root in (await self.status()).roots if root.id == state.other)
        if old.certificates and not force:
            raise RequestRefused(409, "in_use", _in_use(old))
        await self._commit(new, revision)
        self._keys.retire(old.id)
        log.warning("CA dropped: nobody trusts it any more", ca=old.id, forced=force, certificates=old.certificates)
        return await self.status()

    async def _commit(self, state: CaState, revision: int) -> None:
        try:
            await self._store.commit(
                when=[Condition(castate.KEY, revision)], put=[Put(castate.KEY, castate.encode(state))]
            )
        except Conflict:
            text = "somebody else rotates the CA at the same time; look at its status, and try again"
            raise RequestRefused(409, "changed", text) from None

    async def _certificates(self) -> list[CertificateRecord]:
        """The certificates in the store that are valid."""
        found = []
        for item in (await self._store.read(CERTIFICATES)).items:
            try:
                found.append(msgspec.json.decode(item.value, type=CertificateRecord))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                raise StoreError(f"the store's {item.key} is not one of this version") from None
        return [each for each in found if each.expires > self._now()]


def _status(
    root: KnownRoot,
    state: CaState,
    key_here: bool,
    issued: list[CertificateRecord],
    newest: dict[str, CertificateRecord],
) -> CaRoot:
    own = [each for each in issued if each.issuer == root.id]
    return CaRoot(
        id=root.id,
        issues=root.id == state.issuing,
        key_here=key_here,
        not_after=certificates.read_roots(root.certificate)[0].not_valid_after_utc.timestamp(),
        certificates=len(own),
        in_use_until=max((each.expires for each in own), default=0.0),
        hosts=tuple(sorted(host for host, each in newest.items() if each.issuer == root.id)),
    )


def _in_use(root: CaRoot) -> str:
    names = ", ".join(root.hosts[:SHOWN]) + (f" and {len(root.hosts) - SHOWN} more" if len(root.hosts) > SHOWN else "")
    waiting = f"not renewed yet: {names}" if names else "all hosts have newer ones, so that --force harms none"
    number = "1 certificate" if root.certificates == 1 else f"{root.certificates} certificates"
    return f"CA {root.id}: {number} of it still valid, the last until {when(root.in_use_until)} ({waiting})"
