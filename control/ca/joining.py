"""Who becomes a host of the mesh and who stops being one: tokens, joining, renewing, revoking. Without HTTP.

Every method raises RequestRefused (what the asker is told), and StoreError.

Two orders that must never be got wrong, and that conditions of the commits enforce whichever of several control servers
works:

- A token works once: the commit that enters the certificate marks the token as used, on condition that nobody has
  changed it since it was read.
- A revoked host gets nothing any more: a renewal is committed on condition that the certificate it was asked with is
  not revoked, and a revocation looks again after its commit, until no certificate is left that it has missed.
"""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from time import time
from typing import TypeVar

import msgspec
import structlog
import trio
from msgspec import Struct, structs

from control.api import certificates, tokens
from control.api.mesh import (
    IssueResponse,
    JoinRequest,
    RenewRequest,
    RevokeDone,
    RevokeRequest,
    TokenCreated,
    TokenInfo,
    TokenRequest,
)
from control.api.tokens import JoinToken, TokenRecord
from control.base.errors import RequestRefused
from control.base.ratelimit import RateLimit, client_of
from control.base.reading.addresses import host_port
from control.base.reading.times import when
from control.base.reading.units import host_name, show
from control.ca import root as ca
from control.ca.castate import CaState
from control.ca.issuing import ATTEMPTS, CERTIFICATES, DAY, CertificateRecord, ClientCertificate, Issuer
from control.ca.trust import REVOKED
from control.store.base import Condition, Conflict, Item, LeaseGone, Put, Store, StoreError, find_one

log = structlog.get_logger()

T = TypeVar("T")

TOKENS, HOSTS = "tokens/", "hosts/"
LEFT = "left/"
"""``left/NAME`` is written in the commit that takes a host off the map on purpose, and goes with its lease: by it every
control server knows who has left from who has vanished."""
MIN_TTL, MAX_TTL = 1.0, 30 * DAY
"""Seconds that a token may live: nobody carries one to a host in less, or needs a month."""
REMEMBERED = DAY
"""Seconds that a token is remembered after its time, so that the log can say what was wrong with it."""
UNKNOWN_REVOKED = 30 * DAY
"""Seconds that a serial which the store does not know stays revoked: nothing says how long it would be valid."""
AT_ONCE = 40
"""Certificates revoked, and tokens deleted, in a commit (`store.base.OPERATIONS`; two changes each, and one; and two
for the host)."""

JOIN_RATE, JOIN_BURST = 2.0, 20
"""Attempts to join a second, and at once, from one address: a machine that starts 20 hosts is an ordinary sight, and a
guess at a secret of 256 bits is none at any rate."""
JOINS_RATE, JOINS_BURST = 100.0, 200
"""And from all addresses: each costs two commits and a signature, some milliseconds together."""
RENEW_RATE, RENEW_BURST = 0.2, 5
"""Renewals a second, and at once, of one host; it needs two a day."""

NOT_ACCEPTED = "the token is not accepted; make a new one with: hostlane token create --host NAME"
"""What a stranger learns, whatever was wrong; the control plane's log says what."""

_SERIAL = re.compile(r"[0-9a-f]{1,40}", re.ASCII)


class RevocationRecord(Struct, frozen=True, kw_only=True):
    """What the store has under ``revoked/<serial>``, until the certificate has expired; `host`: empty if not known."""

    host: str
    at: float
    expires: float


class HostEnrolment:
    """See the module's text.

    Args:
        now: seconds since 1970.
        servers: where control servers are that hosts can reach.

    Attributes:
        counts: by outcome: ``joined``, ``renewed``, ``revoked``, ``token_used``, ``token_expired``, ``token_unknown``,
            ``token_wrong_host``, ``token_malformed``, ``token_wrong_secret``, ``too_many``, ``bad_csr``,
            ``renewal_revoked``, ``renewal_expired``, ``renewal_dropped``.
    """

    def __init__(
        self,
        store: Store,
        issuer: Issuer,
        now: Callable[[], float] = time,
        servers: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._servers = servers
        self.counts: Counter[str] = Counter()
        self._store, self._issuer, self._now = store, issuer, now
        self._joins = RateLimit(JOIN_RATE, JOIN_BURST, JOINS_RATE, JOINS_BURST)
        self._renewals = RateLimit(RENEW_RATE, RENEW_BURST)

    async def join(self, request: JoinRequest, client: str) -> IssueResponse:
        """A host's first certificate, for a token. `client`: the IP address that asks (429 ``too_many``; 403 ``token``;
        400 ``csr``; 503 ``no_key``).
        """
        who = {"client": client, "host": show(request.host)}
        if not self._joins.allows(client_of(client), trio.current_time()):
            self.counts["too_many"] += 1
            log.info("join refused: too many attempts", kind=(client,), **who)
            raise RequestRefused(429, "too_many", "too many attempts to join; try again in a while")
        try:
            token = tokens.parse_untrusted(request.token)
        except ValueError as error:
            raise self._no("token_malformed", str(error), **who) from None
        key = f"{TOKENS}{token.id}"
        item = await find_one(self._store, key)
        if item is None:
            raise self._no("token_unknown", "it was never made, or deleted", token=token.id, **who)
        record = self._check(token, _decoded(item, TokenRecord), request.host, who)
        public_key = self._key_of(request.csr, who)
        used = structs.replace(record, used=self._now())
        try:
            leaf, state = await self._issuer.issue(
                public_key,
                ca.CertificateNames.host(self._issuer.mesh, record.host),
                record.host,
                when=[Condition(key, item.revision)],
                put=[Put(key, msgspec.json.encode(used), item.lease)],
            )
        except (Conflict, LeaseGone):
            raise self._no("token_used", "somebody was faster", token=token.id, **who) from None
        self.counts["joined"] += 1
        expires = when(leaf.not_after)
        log.info("host joined", host=record.host, client=client, token=token.id, serial=leaf.serial, expires=expires)
        return _issued(leaf, state)

    async def renew(self, request: RenewRequest, shown: ClientCertificate) -> IssueResponse:
        """The next certificate of the host that asks, by the one that it has shown (403 ``revoked``, ``expired``,
        ``dropped``; 429; 400 ``csr``; 503 ``no_key``).
        """
        host = shown.host
        if not self._renewals.allows(host, trio.current_time()):
            self.counts["too_many"] += 1
            log.info("renewal refused: too many attempts", kind=(host,), host=host)
            raise RequestRefused(429, "too_many", "too many renewals; try again in a while")
        public_key = self._key_of(request.csr, {"host": host})
        for _ in range(ATTEMPTS):
            try:
                standing = await self._issuer.standing(shown, await self._store.find(*shown.keys))
            except RequestRefused as refused:
                self.counts[f"renewal_{refused.code}"] += 1
                log.warning("renewal refused", kind=(host,), why=str(refused), host=host, serial=shown.serial)
                text = f"{refused}; the host joins again with a new token, if it may"
                raise RequestRefused(403, refused.code, text) from None
            try:
                leaf, state = await self._issuer.issue(
                    public_key,
                    ca.CertificateNames.host(self._issuer.mesh, host),
                    host,
                    when=standing.when,
                    put=standing.put,
                )
            except (Conflict, LeaseGone):
                # Revoked meanwhile, or entered by another request: looked at again.
                await self._issuer.withdraw(standing)
                continue
            except RequestRefused:
                await self._issuer.withdraw(standing)
                raise
            self._issuer.committed(shown, standing)
            self.counts["renewed"] += 1
            good = when(leaf.not_after)
            log.info("certificate renewed", host=host, serial=leaf.serial, before=shown.serial, expires=good)
            return _issued(leaf, state)
        raise StoreError(f"the certificate of host {host} is changed all the time; try again")

    async def create_token(self, request: TokenRequest) -> TokenCreated:
        """A token (400 ``host``, ``ttl`` or ``servers``)."""
        try:
            host_name(request.host)
        except ValueError as error:
            raise RequestRefused(400, "host", f"host: {error}") from None
        if not MIN_TTL <= request.ttl <= MAX_TTL:
            raise RequestRefused(400, "ttl", f"ttl: found {request.ttl:g} s; allowed: 1 s to 30 days")
        state, _ = await self._issuer.state()
        roots = [certificates.read_roots(root.certificate)[0] for root in state.roots][-tokens.MAX_ROOTS :]
        random = secrets.token_bytes(tokens.ID_BYTES + tokens.SECRET_BYTES)
        pins = tuple(map(certificates.fingerprint, roots))
        token = tokens.make(request.host, pins, random, _servers(request) or tuple(self._servers()), self._issuer.mesh)
        expires = self._now() + request.ttl
        record = TokenRecord(host=request.host, hash=tokens.hash_of(token), expires=expires)
        key = f"{TOKENS}{token.id}"
        lease = await self._store.grant(request.ttl + REMEMBERED)
        await self._store.commit(when=[Condition(key, 0)], put=[Put(key, msgspec.json.encode(record), lease)])
        log.info("token created", host=request.host, token=token.id, expires=when(expires))
        return TokenCreated(token=tokens.text(token), expires=expires)

    async def tokens(self) -> list[TokenInfo]:
        """The tokens that can still be used, without their secrets."""
        found = [(item.key, _decoded(item, TokenRecord)) for item in (await self._store.read(TOKENS)).items]
        return [
            TokenInfo(id=key.removeprefix(TOKENS), host=record.host, expires=record.expires)
            for key, record in found
            if record.used is None and record.expires > self._now()
        ]

    async def delete_token(self, token: str) -> None:
        """Delete a token by its id (404 ``unknown_token``)."""
        item = await find_one(self._store, f"{TOKENS}{token}") if tokens.is_id(token) else None
        if item is None:
            text = f"there is no token {show(token)}; hostlane token list shows them"
            raise RequestRefused(404, "unknown_token", text)
        await self._store.commit(delete=[item.key])
        log.info("token deleted", token=token, host=_decoded(item, TokenRecord).host)

    async def revoke(self, request: RevokeRequest) -> RevokeDone:
        """Revoke a host, with all its certificates and tokens, and take it off the map in the same commit; or revoke
        one serial (400; 404 ``unknown_host`` if the host has nothing to revoke).
        """
        if (request.host is None) == (request.serial is None):
            raise RequestRefused(400, "revoke", "found a host and a serial, or neither; allowed: one of them")
        if request.serial is not None:
            return await self._revoke_serial(request.serial)
        assert request.host is not None
        return await self._revoke_host(request.host)

    async def _revoke_host(self, host: str) -> RevokeDone:
        try:
            host_name(host)
        except ValueError as error:
            raise RequestRefused(400, "host", f"host: {error}") from None
        done: list[str] = []
        found_any = False
        # Again, until nothing is found: a renewal may have been committed between a look and its commit. Each needs a
        # certificate that is not revoked, so it ends.
        for _ in range(ATTEMPTS):
            own = [item for item in await self._items(TOKENS) if _decoded(item, TokenRecord).host == host]
            unused = [item.key for item in own if _decoded(item, TokenRecord).used is None]
            valid = [item for item in await self._items(CERTIFICATES) if _decoded(item, CertificateRecord).host == host]
            found_any = found_any or bool(own or valid)
            if not valid and not unused:
                break
            for start in range(0, max(len(valid), len(unused)), AT_ONCE):
                part = valid[start : start + AT_ONCE]
                try:
                    await self._commit_revoked(part, unused[start : start + AT_ONCE], host if start == 0 else None)
                except (Conflict, LeaseGone):
                    break  # one has just expired, or another server revokes the same host
                done += [_serial(item) for item in part]
        else:
            raise StoreError(f"host {host} gets certificates as fast as they are revoked; try again")
        if not done and not found_any and not await self._was_revoked(host):
            text = f"host {show(host)} has no valid certificate and no token; hostlane hosts shows who is there"
            raise RequestRefused(404, "unknown_host", text)
        self.counts["revoked"] += len(done)
        log.warning("host revoked", host=host, serials=done)
        return RevokeDone(serials=tuple(done))

    async def _revoke_serial(self, serial: str) -> RevokeDone:
        serial = serial.lower().replace(":", "").lstrip("0")
        if _SERIAL.fullmatch(serial) is None:
            raise RequestRefused(400, "serial", f"serial: found {show(serial)}; allowed: a serial number in hex")
        if not await find_one(self._store, f"{REVOKED}{serial}"):
            if item := await find_one(self._store, f"{CERTIFICATES}{serial}"):
                try:
                    await self._commit_revoked([item])
                except (Conflict, LeaseGone):
                    text = f"certificate {serial} was changed meanwhile; try again"
                    raise RequestRefused(409, "changed", text) from None
            else:
                now = self._now()
                revoked = RevocationRecord(host="", at=now, expires=now + UNKNOWN_REVOKED)
                lease = await self._store.grant(UNKNOWN_REVOKED)
                await self._store.commit(put=[Put(f"{REVOKED}{serial}", msgspec.json.encode(revoked), lease)])
            self.counts["revoked"] += 1
            log.warning("certificate revoked", serial=serial, known=item is not None)
        return RevokeDone(serials=(serial,))

    async def _commit_revoked(
        self, certificates: list[Item], tokens: Sequence[str] = (), host: str | None = None
    ) -> None:
        """On the lease of the certificate: revoked until it would have expired. With them go these tokens, and the host
        leaves the map. Raises Conflict and LeaseGone, and nothing has changed.
        """
        now, put, gone = self._now(), [], list(tokens)
        conditions = [Condition(item.key, item.revision) for item in certificates]
        if host is not None:
            registered = await find_one(self._store, f"{HOSTS}{host}")
            if registered is not None:
                # Whatever it has registered since then: who is revoked is not on the map.
                gone.append(registered.key)
                put += [Put(f"{LEFT}{host}", b"", registered.lease)] if registered.lease else []
            else:
                conditions.append(Condition(f"{HOSTS}{host}", 0))
        for item in certificates:
            record = _decoded(item, CertificateRecord)
            revoked = RevocationRecord(host=record.host, at=now, expires=record.expires)
            put.append(Put(f"{REVOKED}{_serial(item)}", msgspec.json.encode(revoked), item.lease))
        await self._store.commit(when=conditions, put=put, delete=[*(item.key for item in certificates), *gone])

    async def _was_revoked(self, host: str) -> bool:
        return any(_decoded(item, RevocationRecord).host == host for item in await self._items(REVOKED))

    def _check(self, token: JoinToken, record: TokenRecord, host: str, who: dict[str, str]) -> TokenRecord:
        """The record, if it says that the token is good for this host. The secret comes first: without it, the rest is
        nobody's business.
        """
        if not tokens.matches(token, record):
            raise self._no("token_wrong_secret", "its secret is not the one of that token", token=token.id, **who)
        if record.used is not None:
            raise self._no("token_used", f"it was used on {when(record.used)}", token=token.id, **who)
        if record.expires <= self._now():
            raise self._no("token_expired", f"it expired on {when(record.expires)}", token=token.id, **who)
        if not record.host == token.host == host:
            raise self._no("token_wrong_host", f"it is for host {record.host}", token=token.id, **who)
        return record

    def _no(self, count: str, why: str, **who: str) -> RequestRefused:
        self.counts[count] += 1
        log.warning(f"join refused: {count.replace('_', ' ')}", kind=(who["client"],), why=why, **who)
        return RequestRefused(403, "token", NOT_ACCEPTED)

    def _key_of(self, csr: str, who: dict[str, str]) -> certificates.PublicKey:
        try:
            return ca.requested_key_untrusted(csr)
        except ValueError as error:
            self.counts["bad_csr"] += 1
            log.warning("certificate request refused", kind=(who.get("client"), who["host"]), why=str(error), **who)
            raise RequestRefused(400, "csr", f"csr: {error}") from None

    async def _items(self, prefix: str) -> tuple[Item, ...]:
        return (await self._store.read(prefix)).items


def _serial(item: Item) -> str:
    return item.key.removeprefix(CERTIFICATES)


def _issued(leaf: ca.IssuedCertificate, state: CaState) -> IssueResponse:
    return IssueResponse(mesh=state.mesh, certificate=leaf.certificate, bundle=state.bundle)


def _servers(request: TokenRequest) -> tuple[str, ...]:
    try:
        found = tuple(host_port(each).hostport for each in request.servers)
    except ValueError as error:
        raise RequestRefused(400, "servers", f"servers: {error}") from None
    if len(found) > tokens.MAX_SERVERS:
        raise RequestRefused(400, "servers", f"servers: found {len(found)}; allowed: {tokens.MAX_SERVERS}")
    return found


def _decoded(item: Item, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(item.value, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise StoreError(f"the store's {item.key} is not one of this version") from None
