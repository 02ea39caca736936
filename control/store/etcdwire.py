"""What etcd's JSON gateway is told and what it answers: bytes of JSON in and out, nothing else.

The gateway is protobuf in JSON: 64-bit numbers are text, keys and values base64, and whatever is zero or empty is left
out. https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from control.store.base import (
    Commit,
    Condition,
    Conflict,
    Item,
    KeyChange,
    Put,
    StoreError,
    StoreSnapshot,
    after_prefix,
)

T = TypeVar("T")

NOT_FOUND, OUT_OF_RANGE, UNAUTHENTICATED = 5, 11, 16
ANSWERS = {3, NOT_FOUND, 6, 7, 8, 9, OUT_OF_RANGE, 12, UNAUTHENTICATED}
"""gRPC's codes of answers that are final: nothing has happened, and another member would say the same."""

NOT_TAKEN = ("etcdserver: no leader", "raft proposal dropped", "etcdserver: not capable")
"""What a member says that has not even begun, beside others under the same code, after which nothing is known."""

STALE_TOKEN = ("etcdserver: user name is empty", "etcdserver: revision of auth store is old")
"""Authenticate again, as after UNAUTHENTICATED."""


class EtcdHeader(Struct, frozen=True):
    cluster_id: int = 0
    member_id: int = 0
    revision: int = 0


class EtcdResponse(Struct, frozen=True):
    header: EtcdHeader = EtcdHeader()


class EtcdKeyValue(Struct, frozen=True):
    key: bytes = b""
    value: bytes = b""
    mod_revision: int = 0
    lease: int = 0


class EtcdRange(EtcdResponse, frozen=True):
    kvs: list[EtcdKeyValue] = []


class EtcdTxnPart(Struct, frozen=True):
    response_range: EtcdRange = EtcdRange()


class EtcdTxn(EtcdResponse, frozen=True):
    succeeded: bool = False
    responses: list[EtcdTxnPart] = []


class EtcdLease(EtcdResponse, frozen=True):
    id: int = msgspec.field(default=0, name="ID")
    ttl: int = msgspec.field(default=0, name="TTL")


class EtcdTimeToLive(EtcdResponse, frozen=True):
    """Seconds that a lease has still to live (-1: there is none), and those that it has at a time."""

    ttl: int = msgspec.field(default=0, name="TTL")
    granted: int = msgspec.field(default=0, name="grantedTTL")


class EtcdAuthToken(EtcdResponse, frozen=True):
    token: str = ""


class EtcdFailure(Struct, frozen=True):
    """What comes instead of an answer; in a stream the code has another name."""

    message: str = ""
    code: int = 0
    grpc_code: int = 0


class EtcdEvent(Struct, frozen=True):
    kv: EtcdKeyValue
    type: str = "PUT"


class EtcdWatchResponse(EtcdResponse, frozen=True):
    created: bool = False
    canceled: bool = False
    fragment: bool = False
    compact_revision: int = 0
    cancel_reason: str = ""
    events: list[EtcdEvent] = []


class EtcdKeepAlive(Struct, frozen=True):
    """The only message of a stream of keep-alives."""

    result: EtcdLease = EtcdLease()
    error: EtcdFailure | None = None

    @property
    def header(self) -> EtcdHeader:
        return self.result.header


class EtcdWatchMessage(Struct, frozen=True):
    """A message of a watch."""

    result: EtcdWatchResponse = EtcdWatchResponse()
    error: EtcdFailure | None = None


def decode(body: bytes, kind: type[T]) -> T:
    """Raises StoreError for what is not such an answer."""
    try:
        # Not strict: numbers come as text.
        return msgspec.json.decode(body, type=kind, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise StoreError("the answer is not one of etcd's v3 gateway") from None


class EtcdKeyspace:
    """The part of etcd that is this store's: everything below `prefix`; others may have the rest.

    Attributes:
        epoch: the key, as etcd has it, that names the history.
    """

    def __init__(self, prefix: str) -> None:
        self.epoch = f"{prefix}epoch"
        self._items = f"{prefix}items/"

    def range(self, prefix: str) -> dict[str, Any]:
        """The body of a read of all keys under the prefix."""
        start = self._items + prefix
        return {"key": encoded(start), "range_end": encoded(after_prefix(start))}

    def view(self, answer: EtcdRange) -> StoreSnapshot:
        return StoreSnapshot(answer.header.revision, tuple(map(self._item, answer.kvs)))

    def finding(self, keys: Sequence[str]) -> dict[str, Any]:
        """The body of a read of these keys, in one transaction without a condition."""
        return {"success": [{"request_range": {"key": encoded(self._items + key)}} for key in keys]}

    def found(self, answer: EtcdTxn) -> tuple[Item | None, ...]:
        """What each of those keys had."""
        parts = (part.response_range.kvs for part in answer.responses)
        return tuple(self._item(pairs[0]) if pairs else None for pairs in parts)

    def _item(self, pair: EtcdKeyValue) -> Item:
        return Item(pair.key.decode()[len(self._items) :], pair.value, pair.mod_revision, pair.lease)

    def txn(self, when: Sequence[Condition], put: Sequence[Put], delete: Sequence[str]) -> dict[str, Any]:
        """The body of a commit. If a condition does not hold, etcd reads what all of them are about."""
        keys = [encoded(self._items + condition.key) for condition in when]
        puts = [
            {"key": encoded(self._items + item.key), "value": encoded(item.value), "lease": str(item.lease)}
            for item in put
        ]
        return {
            "compare": [
                {"key": key, "target": "MOD", "result": "EQUAL", "mod_revision": str(condition.revision)}
                for key, condition in zip(keys, when, strict=True)
            ],
            "success": [
                *({"request_put": item} for item in puts),
                *({"request_delete_range": {"key": encoded(self._items + key)}} for key in delete),
            ],
            "failure": [{"request_range": {"key": key}} for key in keys],
        }

    def conflict(self, when: Sequence[Condition], answer: EtcdTxn) -> Conflict:
        """The first condition that did not hold."""
        for condition, part in zip(when, answer.responses, strict=True):
            found = part.response_range.kvs
            if (found[0].mod_revision if found else 0) != condition.revision:
                return Conflict(condition.key)
        raise StoreError("etcd refused a transaction whose conditions hold")

    def watch(self, prefix: str, after: int) -> dict[str, Any]:
        """The body of a watch of what comes after that revision.

        It begins with that revision itself, of which `CommitAssembler` drops what comes: only so does etcd refuse when
        anything after it may be compacted. Compacting revision N takes deletions in N as well, and yet a watch from N
        on is allowed.
        """
        return {
            "create_request": {
                **self.range(prefix), "start_revision": str(max(after, 1)), "progress_notify": True, "fragment": True,
            }
        }  # fmt: skip

    def change(self, event: EtcdEvent) -> KeyChange:
        key = event.kv.key.decode()[len(self._items) :]
        return KeyChange(key, None if event.type == "DELETE" else event.kv.value)


class CommitAssembler:
    """Commits out of the messages of one watch. A large message comes in fragments, which cut where they like."""

    def __init__(self, keyspace: EtcdKeyspace) -> None:
        self._keyspace = keyspace
        self._revision = 0
        self._changes: list[KeyChange] = []

    def take(self, message: EtcdWatchResponse) -> Iterator[Commit]:
        """The commits that are complete with this message."""
        for event in message.events:
            if event.kv.mod_revision != self._revision:
                yield from self._complete()
                self._revision = event.kv.mod_revision
            self._changes.append(self._keyspace.change(event))
        if not message.fragment:
            yield from self._complete()

    def _complete(self) -> Iterator[Commit]:
        if self._changes:
            yield Commit(self._revision, tuple(sorted(self._changes)))
            self._changes = []


class LineSplitter:
    """Lines out of bytes that come in pieces."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that are complete with these bytes, without their ends; empty ones left out."""
        first, *rest = data.split(b"\n")
        self._pieces.append(first)
        for piece in rest:
            if line := b"".join(self._pieces):
                yield line
            self._pieces = [piece]


def encoded(data: str | bytes) -> str:
    """Base64, as the gateway takes keys and values."""
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()
