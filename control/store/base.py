"""What a store promises, whichever it is; the same tests run against each.

A store is one ordered history. Each commit has a revision, higher than the one before; an item carries the revision of
its last change. What `Store.commit` has returned survives the death of the process at any moment.

Leases tie items to somebody's life: they vanish, as a commit of their own, when the lease has not been kept alive for
its TTL. A store that was away (restart, change of leader) gives every lease its full TTL again: nobody dies of the
store's own absence.

What a caller must keep to (`check` raises ValueError otherwise: it is a bug of the caller): keys are printable ASCII
without spaces, at most KEY_BYTES long; a commit has at most OPERATIONS conditions, at most OPERATIONS changes, and at
most COMMIT_BYTES of keys and values.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from trio.abc import ReceiveChannel

from control.base.errors import HostlaneError

KEY_BYTES = 512
OPERATIONS = 128
"""etcd's own limit (``--max-txn-ops``)."""
COMMIT_BYTES = 1 << 20
"""etcd takes requests of 1.5 MiB (``--max-request-bytes``); the rest is for its framing."""


class StoreError(HostlaneError):
    """The store did not answer, or cannot work; whether a commit under way has happened is not known."""


class Conflict(HostlaneError):
    """A condition of a commit does not hold; nothing was changed.

    Attributes:
        key: the first one whose revision was another.
    """

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} was changed meanwhile")
        self.key = key


class LeaseGone(HostlaneError):
    """The lease has expired, was revoked, or never was."""


class Compacted(HostlaneError):
    """The history no longer reaches back to the revision asked for: read everything again."""


class Item(NamedTuple):
    """A key (path-like ASCII: ``hosts/host-a``), its value, its last change, and the lease it hangs on (0: none)."""

    key: str
    value: bytes
    revision: int
    lease: int = 0


class Put(NamedTuple):
    """A value to write; the item hangs on `lease` from then on (0: none)."""

    key: str
    value: bytes
    lease: int = 0


class Condition(NamedTuple):
    """A condition: the item's last change was in this revision; 0: there is no such item."""

    key: str
    revision: int


class StoreSnapshot(NamedTuple):
    """Items in the order of their keys, as they were at one revision."""

    revision: int
    items: tuple[Item, ...]


class KeyChange(NamedTuple):
    """What became of a key; `value` None: it is gone."""

    key: str
    value: bytes | None


class Commit(NamedTuple):
    """The changes of one revision, in the order of their keys."""

    revision: int
    changes: tuple[KeyChange, ...]


class Store(Protocol):
    """See the module's text. Every method may raise StoreError. Cancelled, a call may or may not have happened."""

    epoch: str
    """Names this history, for good: another one in a store that began empty or came from a backup. Set once the store
    is open."""

    async def read(self, prefix: str) -> StoreSnapshot:
        """All items whose keys begin with `prefix` (for one item its whole key, if no other key extends it)."""

    async def find(self, *keys: str) -> tuple[Item | None, ...]:
        """The items of these keys, as they were at one revision; None: there is no such item. At most OPERATIONS keys;
        all of them for the price of one call.
        """

    async def commit(
        self, *, when: Sequence[Condition] = (), put: Sequence[Put] = (), delete: Sequence[str] = ()
    ) -> int:
        """Change all of it or nothing; returns the revision. A key stands once among `put` and `delete`.

        A put is a change, whatever the value was; deleting what is not there is none, and a commit without any change
        returns the present revision. Raises Conflict if a condition does not hold, else LeaseGone if a lease does not
        exist.
        """

    def watch(self, prefix: str, after: int) -> AbstractAsyncContextManager[ReceiveChannel[Commit]]:
        """Every commit after revision `after` that touches keys under `prefix` (with those of its changes that do), in
        order and without a gap; it goes on over a change of the store's leader.

        Entering raises Compacted, also for a revision that this history has not reached. Receiving raises Compacted or
        StoreError when it cannot go on without a gap, or is blind for long. A watcher that does not take what comes
        holds up nobody: what is buffered for it is bounded (`watches.BYTES`), and one that falls behind further is
        ended with Compacted. Leaving the block closes the channel.
        """

    async def grant(self, ttl: float) -> int:
        """A new lease, with `ttl` seconds to live at a time (etcd: whole ones, rounded up, and not less than one and a
        half of its election timeouts); returns its id, not 0."""

    async def keep_alive(self, lease: int) -> None:
        """Give the lease its whole TTL again. Raises LeaseGone."""

    async def unheard(self, lease: int) -> float:
        """Seconds since the lease was granted or kept alive, or since the store was last away (etcd: rounded to whole
        ones). Raises LeaseGone."""

    async def revoke(self, lease: int) -> None:
        """End the lease now, and with it its items, in one commit. A lease that is gone is fine."""

    async def backup(self, path: str) -> None:
        """Write a copy to `path`, whole or not at all. Raises StoreError if that fails: the path is taken, the disk is
        full, or the store is none of this machine."""


async def find_one(store: Store, key: str) -> Item | None:
    """`Store.find` for one key. Raises StoreError."""
    (item,) = await store.find(key)
    return item


def check(when: Sequence[Condition], put: Sequence[Put], delete: Sequence[str]) -> None:
    """Raises ValueError for a commit that no store takes."""
    changed = [*(item.key for item in put), *delete]
    if len(changed) != len(set(changed)):
        raise ValueError("a key stands twice among the changes of a commit")
    if max(len(when), len(changed)) > OPERATIONS:
        raise ValueError(f"a commit of {len(when)} conditions and {len(changed)} changes; allowed: {OPERATIONS} each")
    for key in (*changed, *(condition.key for condition in when)):
        check_key(key)
        if not key:
            raise ValueError("an empty key")
    size = sum(map(len, changed)) + sum(len(item.value) for item in put)
    if size > COMMIT_BYTES:
        raise ValueError(f"a commit of {size} bytes; allowed: {COMMIT_BYTES}")


def check_keys(keys: Sequence[str]) -> None:
    """Raises ValueError for what no store finds."""
    if len(keys) > OPERATIONS:
        raise ValueError(f"{len(keys)} keys; allowed: {OPERATIONS}")
    for key in keys:
        check_key(key)


def check_key(key: str) -> None:
    """Raises ValueError for what is neither a key nor the beginning of one."""
    if len(key) > KEY_BYTES or not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError(f"{key[:80]!a} is not a key; allowed: up to {KEY_BYTES} printable ASCII characters")


def after_prefix(prefix: str) -> str:
    """The first text, in the order of keys, behind all that begin with `prefix`; not for the empty one."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)
