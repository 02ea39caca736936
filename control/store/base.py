"""What a store promises, whichever it is; the same tests run against each.

A store is one ordered history. Each commit has a revision, higher than the one before; an item carries the revision of
its last change. What `Store.commit` has returned survives the death of the process at any moment.

Leases tie items to somebody's life: they vanish, as a commit of their own, when the lease has not been kept alive for
its TTL. A store that was away (restart, change of leader) gives every lease its full TTL again: nobody dies of the
store's own absence.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

import trio

from control.errors import HostlaneError


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


class When(NamedTuple):
    """A condition: the item's last change was in this revision; 0: there is no such item."""

    key: str
    revision: int


class View(NamedTuple):
    """Items in the order of their keys, as they were at one revision."""

    revision: int
    items: tuple[Item, ...]


class Change(NamedTuple):
    """What became of a key; `value` None: it is gone."""

    key: str
    value: bytes | None


class Commit(NamedTuple):
    """The changes of one revision."""

    revision: int
    changes: tuple[Change, ...]


class Store(Protocol):
    """See the module's text. Every method may raise StoreError. Cancelled, a call may or may not have happened."""

    epoch: str
    """Names this history, for good: another one in a store that began empty. Set once the store is open."""

    async def read(self, prefix: str) -> View:
        """All items whose keys begin with `prefix` (for one item its whole key, if no other key extends it)."""

    async def commit(
        self, *, when: Sequence[When] = (), put: Sequence[Put] = (), delete: Sequence[str] = ()
    ) -> int:
        """Change all of it or nothing; returns the revision. A key stands once among `put` and `delete`.

        Raises Conflict if a condition does not hold, LeaseGone if a lease does not exist.
        """

    def watch(self, prefix: str, after: int) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[Commit]]:
        """Every commit after revision `after` that touches keys under `prefix` (with those of its changes that do), in
        order and without a gap; it goes on over a change of the store's leader. Entering raises Compacted; the channel
        ends with Compacted or StoreError when it cannot go on without a gap. A watcher that does not take what comes
        holds up nobody: what is buffered for it is bounded, and one that falls behind further is ended with Compacted.
        """

    async def grant(self, ttl: float) -> int:
        """A new lease, with `ttl` seconds to live at a time; returns its id, not 0."""

    async def keep_alive(self, lease: int) -> None:
        """Give the lease its whole TTL again. Raises LeaseGone."""

    async def revoke(self, lease: int) -> None:
        """End the lease now, and with it its items, in one commit. A lease that is gone is fine."""
