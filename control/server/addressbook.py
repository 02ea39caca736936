"""The address book: which host has which address on a segment, written so that no two can have the same.

``addresses/SEGMENT/IP`` names an address's holder and ``macs/SEGMENT/MAC`` a MAC's; both are made by one commit whose
conditions say that neither was there. They hang on a lease as long as the segment's hold time, which
`AddressBook.run` keeps alive for hosts that are on the map.

A leased address is looked for from a place that follows from the host's name, so that hosts that ask at the same time
rarely meet, and a host gets its old address again even from a book that was lost. Its MAC follows from the address: the
local bit, a byte for the segment, and the address's position in the pool.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import msgspec
import structlog
import trio
from msgspec import Struct

from control.api.mesh import AddressLease, AddressRequest, SegmentUse
from control.base.errors import RequestRefused
from control.base.reading import units
from control.base.reading.units import is_mac, show
from control.server.config import AddressPoolConfig
from control.store.base import Condition, Conflict, Item, LeaseGone, Put, Store, StoreError, find_one

__all__ = ["ADDRESSES", "MACS", "AddressBook", "AddressRecord", "free_addresses", "mac_of"]

log = structlog.get_logger()

ADDRESSES, MACS = "addresses/", "macs/"
ATTEMPTS = 16
"""Conflicts with other hosts that a request takes; each means that somebody else has got an address."""
LEFT = 40
"""Addresses that a host has left, forgotten in one commit (`store.base.OPERATIONS`)."""
ROUNDS = 10
"""How often in a hold time what is held is kept: nine of ten may fail."""
_PART = re.compile(r"(@[A-Za-z0-9_.:-]{1,150})?", re.ASCII)


class AddressRecord(Struct, frozen=True, kw_only=True):
    """An entry; `static`: the host brought the address along; `part`: `control.api.mesh.AddressRequest`."""

    host: str
    mac: str | None = None
    static: bool = False
    part: str = ""

    def is_of(self, host: str, part: str) -> bool:
        return (self.host, self.part) == (host, part)

    def __str__(self) -> str:
        return f"host {self.host}'s" + (f" ({self.part})" if self.part else "")


class AddressBook:
    """See the module's text. Methods raise RequestRefused (what the asker is told), and StoreError."""

    def __init__(self, store: Store, segments: Mapping[str, AddressPoolConfig]) -> None:
        self._store = store
        self._segments = dict(segments)

    async def lease(self, host: str, request: AddressRequest) -> AddressLease:
        """The address of a host on a segment: its own, one from the pool, or the one that it says it has.

        Refused: 404 ``no_segment``; 409 ``pool_empty``; 409 ``taken``, with the holder's name; 400 ``address``.
        """
        segment = self._segments.get(request.segment)
        if segment is None:
            known = ", ".join(sorted(self._segments)) or "none so far"
            text = f"found segment {show(request.segment)}; allowed: {known} (segments in the control server's file)"
            raise RequestRefused(404, "no_segment", text)
        part = request.part
        if _PART.fullmatch(part) is None:
            raise RequestRefused(400, "address", f"found part {show(part)}; allowed: none, or @CONTAINER:INTERFACE")
        wanted = None if request.address is None else _wanted(request, segment)
        for _ in range(ATTEMPTS):
            taken = await self._entries(request.segment)
            # A host that has moved holds its old address no longer than it is there. (A lease is its own beside it.)
            left = [
                at
                for at, (_, held) in taken.items()
                if held.static and held.is_of(host, part) and (request.alone if wanted is None else at != wanted)
            ][:LEFT]
            if wanted is None:
                mine = next((ip for ip, (_, at) in taken.items() if at.is_of(host, part) and not at.static), None)
                if mine is not None and not _in(mine, segment):
                    mine = None
                if mine is not None and not left:
                    return _answer(request, segment, mine, taken[mine][1].mac)
                ip = mine or _again(request, segment, taken) or next(free_addresses(host + part, segment, taken), None)
                if ip is None:
                    text = f"segment {request.segment}: all addresses of {segment.pool} are held"
                    raise RequestRefused(409, "pool_empty", text)
                mac = mac_of(request.segment, segment, ip) if mine is None else taken[mine][1].mac
            else:
                ip, mac = wanted, request.mac.lower() if request.mac is not None else None
                if ip in taken:
                    held = taken[ip][1]
                    if not held.is_of(host, part):
                        text = f"address {ip} on segment {request.segment} is {held}"
                        raise RequestRefused(409, "taken", f"{text}; allowed: an address of its own")
                    if held.mac == mac and held.static:
                        return _answer(request, segment, ip, mac)
            try:
                await self._enter(request, segment, host, ip, mac, taken, left)
            except Conflict:
                continue
            kind, static = (host, request.segment), wanted is not None
            log.info("address entered", kind=kind, host=host, segment=request.segment, address=ip, static=static)
            return _answer(request, segment, ip, mac)
        raise RequestRefused(503, "busy", f"segment {request.segment}: too many hosts ask at once; ask again")

    async def _enter(
        self,
        request: AddressRequest,
        segment: AddressPoolConfig,
        host: str,
        ip: str,
        mac: str | None,
        taken: Mapping[str, tuple[Item, AddressRecord]],
        left: Sequence[str],
    ) -> None:
        """Write an entry in place of those `left`. Raises Conflict if anybody was faster, RequestRefused if the MAC is
        another host's."""
        key = f"{ADDRESSES}{request.segment}/{ip}"
        mine = AddressRecord(host=host, mac=mac, static=request.address is not None, part=request.part)
        lease = await self._store.grant(segment.hold)
        when = [Condition(key, 0 if ip not in taken else taken[ip][0].revision)]
        put = [Put(key, msgspec.json.encode(mine), lease)]
        delete = []
        if mac is not None:
            mac_key = f"{MACS}{request.segment}/{mac}"
            entry = await find_one(self._store, mac_key)
            holder = mine if entry is None else msgspec.json.decode(entry.value, type=AddressRecord)
            if not holder.is_of(host, request.part):
                await self._store.revoke(lease)
                text = f"MAC {mac} on segment {request.segment} is {holder}; allowed: a MAC of its own"
                raise RequestRefused(409, "taken", text)
            when.append(Condition(mac_key, 0 if entry is None else entry.revision))
            put.append(Put(mac_key, msgspec.json.encode(AddressRecord(host=host, mac=mac, part=request.part)), lease))
        for item, _ in map(taken.__getitem__, left):
            when.append(Condition(item.key, item.revision))
            delete.append(item.key)
        replaced = {*left, ip}
        old = {held.mac for at, (_, held) in taken.items() if at in replaced}
        kept = {held.mac for at, (_, held) in taken.items() if at not in replaced}
        delete += [f"{MACS}{request.segment}/{each}" for each in sorted(filter(None, old - kept - {mac}))]
        try:
            await self._store.commit(when=when, put=put, delete=delete)
        except Conflict:
            await self._store.revoke(lease)
            raise

    async def give_back(self, host: str, segment: str, part: str) -> None:
        """Free what a host, or a part of it, holds on a segment. Fine if that is nothing."""
        try:
            # Not one of the configuration's: it may have been taken out of that since.
            units.service_name(segment)
        except ValueError as error:
            raise RequestRefused(400, "query", f"segment: {error}") from None
        keys = []
        for prefix in (ADDRESSES, MACS):
            for item in (await self._store.read(f"{prefix}{segment}/")).items:
                if msgspec.json.decode(item.value, type=AddressRecord).is_of(host, part):
                    keys.append(item.key)
        if keys:
            # What a host holds only the host changes, one request after the other.
            await self._store.commit(delete=keys)
            log.info("addresses given back", kind=(host, segment), host=host, segment=segment, part=part)

    async def keys_of(self, host: str) -> list[str]:
        """Everything that a host holds: whoever deletes these frees its addresses."""
        keys = []
        for prefix in (ADDRESSES, MACS):
            for item in (await self._store.read(prefix)).items:
                if msgspec.json.decode(item.value, type=AddressRecord).host == host:
                    keys.append(item.key)
        return keys

    async def use(self, host: str | None = None) -> tuple[SegmentUse, ...]:
        """How full each pool is, and how many MACs its hosts put on the segment; `host`: whoever asks."""
        found = []
        for name, segment in self._segments.items():
            held = (await self._store.read(f"{ADDRESSES}{name}/")).items
            macs = (await self._store.read(f"{MACS}{name}/")).items
            holders = [msgspec.json.decode(item.value, type=AddressRecord) for item in held]
            own = [msgspec.json.decode(item.value, type=AddressRecord) for item in macs] if host is not None else []
            found.append(
                SegmentUse(
                    name=name,
                    pool=str(segment.pool),
                    size=_Usable(segment).count(),
                    held=len(held),
                    macs=len(macs),
                    hosts=len({holder.host for holder in holders}),
                    own=tuple(sorted(entry.mac for entry in own if entry.host == host and entry.mac)),
                )
            )
        return tuple(found)

    async def run(
        self, present: Callable[[], Collection[str]], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Keep what the hosts hold that are `present`, until cancelled. A store that is away is asked again later."""
        task_status.started()
        if not self._segments:
            return
        while True:
            await trio.sleep(min(segment.hold for segment in self._segments.values()) / ROUNDS)
            try:
                await self._keep(frozenset(present()))
            except StoreError as error:
                log.warning("addresses not kept this time", kind=(), error=str(error))

    async def _keep(self, present: frozenset[str]) -> None:
        for item in (await self._store.read(ADDRESSES)).items:
            if msgspec.json.decode(item.value, type=AddressRecord).host in present:
                try:
                    await self._store.keep_alive(item.lease)
                except LeaseGone:
                    continue

    async def _entries(self, segment: str) -> dict[str, tuple[Item, AddressRecord]]:
        prefix = f"{ADDRESSES}{segment}/"
        items = (await self._store.read(prefix)).items
        return {
            item.key.removeprefix(prefix): (item, msgspec.json.decode(item.value, type=AddressRecord)) for item in items
        }


def free_addresses(host: str, segment: AddressPoolConfig, taken: Collection[str]) -> Iterator[str]:
    """Addresses of the pool that nobody holds, from the place on that follows from the host's name."""
    size = segment.pool.num_addresses
    start = int.from_bytes(hashlib.sha256(host.encode()).digest()[:8], "big") % size
    usable = _Usable(segment)
    for position in range(size):
        ip = segment.pool[(start + position) % size]
        if ip in usable and str(ip) not in taken:
            yield str(ip)


def mac_of(name: str, segment: AddressPoolConfig, ip: str) -> str:
    """The MAC that goes with an address: unique on the segment, as the address is, and the same each time."""
    position = int(ipaddress.ip_address(ip)) - int(segment.pool.network_address)
    raw = bytes([0x02, hashlib.sha256(name.encode()).digest()[0]]) + position.to_bytes(4, "big")
    return raw.hex(":")


class _Usable:
    """The addresses of a pool that a host may have, by ``in``."""

    def __init__(self, segment: AddressPoolConfig) -> None:
        pool = segment.pool
        self._reserved = segment.reserved
        # The network's own address and, where there is one, its broadcast address.
        self._ends = {pool.network_address, pool.broadcast_address} if pool.num_addresses > 2 else set()
        self._pool = pool

    def __contains__(self, ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        return ip in self._pool and ip not in self._ends and not any(ip in part for part in self._reserved)

    def count(self) -> int:
        """How many they are."""
        parts = ipaddress.collapse_addresses(self._reserved)  # type: ignore[type-var]
        lost = sum(part.num_addresses for part in parts)
        ends = sum(1 for ip in self._ends if not any(ip in part for part in self._reserved))
        return self._pool.num_addresses - lost - ends


def _ip(raw: str | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Raises ValueError, also for an IPv6 address with a zone: that is the same one, spelled as if it were another."""
    found = ipaddress.ip_address(raw or "")
    if isinstance(found, ipaddress.IPv6Address) and found.scope_id is not None:
        raise ValueError
    return found


def _wanted(request: AddressRequest, segment: AddressPoolConfig) -> str:
    """The address that a host says it has, in one spelling. Raises RequestRefused."""
    try:
        ip = _ip(request.address)
        if ip not in segment.pool:
            raise ValueError
    except ValueError:
        text = f"found {show(request.address)}; allowed: an address of {segment.pool} (segment {request.segment})"
        raise RequestRefused(400, "address", text) from None
    if request.mac is not None and not is_mac(request.mac.lower()):
        text = f"found MAC {show(request.mac)}; allowed: one such as 02:00:5e:10:00:01"
        raise RequestRefused(400, "address", text)
    return str(ip)


def _again(request: AddressRequest, segment: AddressPoolConfig, taken: Collection[str]) -> str | None:
    """The address that the asker had before, if it can have it again."""
    try:
        before = str(_ip(request.before))
    except ValueError:
        return None
    return before if before not in taken and _in(before, segment) else None


def _in(ip: str, segment: AddressPoolConfig) -> bool:
    return ipaddress.ip_address(ip) in _Usable(segment)


def _answer(request: AddressRequest, segment: AddressPoolConfig, ip: str, mac: str | None) -> AddressLease:
    address = f"{ip}/{segment.pool.prefixlen}"
    return AddressLease(segment=request.segment, address=address, mac=mac or "", lease=segment.hold, part=request.part)
