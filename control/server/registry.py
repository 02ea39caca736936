"""What registering, staying and leaving mean to the store (sans-IO): items in, a commit or a refusal out.

A host is two items that hang on one lease: ``hosts/NAME``, its record, and ``links/IP:PORT``, which makes sure that no
two hosts are dialled at one address.

One name, one proxy. A newer instance of a host that shows the secret which the older one was registered with has its
state_dir: it is a restart, and replaces the record at once. (The old process, should it still run, is told so when it
next says that it is alive.) One that does not show it is another proxy, on another machine perhaps, and is refused as
long as the older one is alive. Then ``namesakes/NAME`` says so to whichever control server the older one asks.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from typing import NamedTuple

import msgspec
from msgspec import Struct

from control.api.mesh import HostRecord, Namesake, RegisterRequest, ServiceOffer
from control.base.errors import RequestRefused
from control.base.reading import addresses, units
from control.ca.joining import HOSTS, LEFT
from control.store.base import Condition, Item, Put

__all__ = [
    "HOSTS",
    "LEFT",
    "LINKS",
    "NAMESAKES",
    "RegisteredHost",
    "StoreTransaction",
    "check_record",
    "decode_host",
    "decode_record",
    "holding",
    "in_use",
    "is_stranger",
    "leave",
    "namesake",
    "register",
    "remove",
]

LINKS, NAMESAKES = "links/", "namesakes/"
MAX_SERVICES = 4096
"""Of one host. With the longest names that is 300 KiB, a third of what a commit may have."""
MAX_TEXT = 128
"""Characters of an instance, version or MAC."""


class LinkHolder(Struct, frozen=True, kw_only=True):
    """What the store has under ``links/IP:PORT``: the host whose link address that is."""

    host: str


class RegisteredHost(HostRecord, frozen=True, kw_only=True):
    """What the store has under ``hosts/NAME``: the record that everybody sees, and what only the registry looks at.

    Attributes:
        secret_hash: of the secret that it was registered with; empty: with none.
        client: the IP address that it was registered from.
    """

    secret_hash: str = ""
    client: str = ""

    @property
    def place(self) -> Namesake:
        """Where it is, in words by ``str()``."""
        return Namesake(address=self.address, client=self.client, instance=self.instance)


class StoreTransaction(NamedTuple):
    """A commit to make: conditions, items to write, keys to delete."""

    when: tuple[Condition, ...]
    put: tuple[Put, ...] = ()
    delete: tuple[str, ...] = ()


def check_record(record: HostRecord) -> HostRecord:
    """The record as it may be kept: one spelling of its address. Raises RequestRefused (400 ``record``)."""
    try:
        units.host_name(record.name)
        place = addresses.unscoped(record.address, addresses.ip_port(record.address))
        if addresses.is_wildcard(place.host):
            raise units.wrong(record.address, "the address of one machine")
        for offer in record.services:
            units.service_name(offer.name)
    except ValueError as error:
        raise RequestRefused(400, "record", f"host {units.show(record.name)}: {error}") from None
    if len({offer.name for offer in record.services}) != len(record.services):
        raise RequestRefused(400, "record", f"host {record.name}: a service stands there twice")
    if len(record.services) > MAX_SERVICES:
        raise RequestRefused(
            400, "record", f"host {record.name}: {len(record.services)} services; allowed: at most {MAX_SERVICES}"
        )
    texts = (record.instance, record.version, record.segment or "", record.mac or "")
    if not record.instance or any(len(text) > MAX_TEXT or not text.isprintable() for text in texts):
        allowed = f"an instance, and at most {MAX_TEXT} printable characters in each of instance, version, segment, mac"
        raise RequestRefused(400, "record", f"host {record.name}: found other text; allowed: {allowed}")
    services = tuple(ServiceOffer(name=name) for name in sorted(offer.name for offer in record.services))
    return msgspec.structs.replace(record, address=place.hostport, services=services)


def namesake(request: RegisterRequest, host: Item | None) -> RegisteredHost | None:
    """The proxy that bears the name already, as its `host` item says, and that `request` may not replace as long as it
    is alive. None: there is none, or the request is that of its restart.
    """
    if host is None:
        return None
    before = decode_host(host)
    if before.instance == request.record.instance:
        return None
    return before if request.yields or is_stranger(before, request.secret, request.before) else None


def is_stranger(host: RegisteredHost, *shown: str) -> bool:
    """Whether none of these secrets is the one that the host is registered with. (One of an earlier version has no
    secret, and knows no strangers.)
    """
    return bool(host.secret_hash) and not any(hmac.compare_digest(host.secret_hash, _hash_of(each)) for each in shown)


def in_use(other: Namesake, host: RegisteredHost) -> RequestRefused:
    """The refusal (409 ``in_use``) of another proxy of the name of a host that is alive. It names both."""
    text = f"host {host.name} is the proxy at {host.place}, which is alive; found another one of that name at {other}"
    return RequestRefused(409, "in_use", f"{text}; allowed: one proxy for each name")


def register(
    record: HostRecord, lease: int, host: Item | None, link: Item | None, secret: str = "", client: str = ""
) -> StoreTransaction:
    """Put the record in force. `host` and `link` are the items that stand at its keys now; `client`: the IP address
    that it comes from.

    Raises RequestRefused (409 ``taken``) if the address is another host's.
    """
    if link is not None and (holder := msgspec.json.decode(link.value, type=LinkHolder).host) != record.name:
        text = f"link address {record.address} is host {holder}'s; allowed: an address of its own"
        raise RequestRefused(409, "taken", text)
    host_key, link_key = HOSTS + record.name, LINKS + record.address
    before = None if host is None else decode_record(host)
    kept = RegisteredHost(**msgspec.structs.asdict(record), secret_hash=_hash_of(secret), client=client)
    return StoreTransaction(
        when=(
            Condition(host_key, 0 if host is None else host.revision),
            Condition(link_key, 0 if link is None else link.revision),
        ),
        put=(
            Put(host_key, msgspec.json.encode(kept), lease),
            Put(link_key, msgspec.json.encode(LinkHolder(host=record.name)), lease),
        ),
        # A host that has moved holds its old address no longer than it is there.
        delete=() if before is None or before.address == record.address else (LINKS + before.address,),
    )


def holding(name: str, instance: str, host: Item | None) -> int:
    """The lease to keep alive for an instance of a host.

    Raises RequestRefused: 404 ``unknown_host``, 409 ``superseded``.
    """
    if host is None:
        raise RequestRefused(404, "unknown_host", f"host {name} is not registered (any more); register again")
    if decode_record(host).instance != instance:
        text = f"host {name} has been registered by another process since, at {decode_host(host).place}"
        raise RequestRefused(409, "superseded", text)
    return host.lease


def leave(instance: str, host: Item | None) -> StoreTransaction | None:
    """The host goes; None: there is nothing to do, as it is gone or another instance's by now."""
    if host is None or decode_record(host).instance != instance:
        return None
    return remove(host)


def remove(host: Item, more: Iterable[str] = ()) -> StoreTransaction:
    """Take a host off the map, and with it the items of the keys `more`."""
    return StoreTransaction(
        when=(Condition(host.key, host.revision),),
        put=(Put(LEFT + host.key.removeprefix(HOSTS), b"", host.lease),) if host.lease else (),
        delete=(host.key, LINKS + decode_record(host).address, *more),
    )


def decode_record(item: Item) -> HostRecord:
    """The record that an item holds."""
    return msgspec.json.decode(item.value, type=HostRecord)


def decode_host(item: Item) -> RegisteredHost:
    """The same with what only the registry looks at."""
    return msgspec.json.decode(item.value, type=RegisteredHost)


def _hash_of(secret: str) -> str:
    """Empty for none. A plain hash is enough: a secret has 256 random bits."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest() if secret else ""
