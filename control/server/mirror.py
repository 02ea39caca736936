"""The store's hosts and trust as a feed: read once, then followed by one watch of the store, whatever watches here.

While the store cannot be watched there is no feed, and the watches that hang on it end. When only the thread was lost
(Compacted), everything is read again and the differences become changes, which no watcher notices.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec
import structlog
import trio

from control.api import mapnews
from control.api.mesh import HostRecord, TrustBundle
from control.base.reading.serviceaddress import SharedAddresses
from control.ca import trust
from control.ca.trust import TrustView
from control.server.feed import MapFeed
from control.server.registry import HOSTS, LEFT, NAMESAKES
from control.server.servers import SERVERS
from control.server.watching import MapWatchers
from control.store.base import Compacted, KeyChange, Store, StoreError

__all__ = ["REMEMBERED", "RETRY", "StoreMirror", "VanishedHost"]

log = structlog.get_logger()

RETRY = 1.0
"""Seconds between attempts to reach a store that is away."""


REMEMBERED = 24 * 3600.0
"""Seconds for which a host that has vanished, and does not come back, is remembered."""


class VanishedHost(NamedTuple):
    """A host whose lease has ended without a word of its own: as it was, and when, seconds since 1970."""

    record: HostRecord
    at: float


class StoreMirror:
    """Keeps a `MapFeed` equal to the store, and gives it to `watching`. `now`: seconds since 1970.

    Attributes:
        vanished: how many hosts' leases have ended without a word of theirs.
    """

    def __init__(self, store: Store, watching: MapWatchers, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._watching = watching
        self._now = now
        self._gone: dict[str, VanishedHost] = {}
        self._trust = TrustView()
        self._feed: MapFeed | None = None
        self._addresses = SharedAddresses()
        self.vanished = 0

    def gone(self) -> list[VanishedHost]:
        """The hosts that have vanished and are not back: since this process began, and for so long (`REMEMBERED`)."""
        since, feed = self._now() - REMEMBERED, self._feed
        back = feed.hosts if feed is not None else {}
        self._gone = {name: each for name, each in self._gone.items() if each.at >= since and name not in back}
        return list(self._gone.values())

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow the store until cancelled. Started when the feed is there, or the first attempt has failed."""
        started = False
        while True:
            try:
                revision = await self._load()
                async with self._store.watch("", revision) as commits:
                    if not started:
                        started = True
                        task_status.started()
                    async for commit in commits:
                        self._apply(commit.revision, commit.changes)
            except Compacted:
                log.info("the store's history was lost; reading it again", kind=())
                continue
            except StoreError as error:
                self._watching.feed = None
                self._watching.publish()
                log.warning("the store cannot be watched", kind=(), error=str(error), retry_s=RETRY)
            if not started:
                started = True
                task_status.started()
            await trio.sleep(RETRY)

    async def _load(self) -> int:
        """Read everything, at one revision, which is returned."""
        view = await self._store.read("")
        fresh = TrustView()
        hosts = {}
        refused = {}
        servers = {}
        left: set[str] = set()
        for item in view.items:
            if item.key.startswith(HOSTS):
                hosts[item.key.removeprefix(HOSTS)] = _record(item.key, item.value)
            elif item.key.startswith(NAMESAKES):
                refused[item.key.removeprefix(NAMESAKES)] = item.value
            elif item.key.startswith(SERVERS):
                servers[item.key.removeprefix(SERVERS)] = item.value
            elif item.key.startswith(LEFT):
                left.add(item.key.removeprefix(LEFT))
            elif item.key.startswith(trust.PREFIXES):
                self._put(fresh, item.key, item.value)
        if self._feed is None:
            self._feed = MapFeed(self._store.epoch, view.revision, hosts, fresh.trust)
        else:
            for name in sorted(self._feed.hosts.keys() - hosts.keys() - left):
                # Who leaves is remembered for a moment only, so that it need not have vanished.
                event, address = "host has gone while the store could not be watched", self._feed.hosts[name].address
                log.warning(event, kind=(name,), host=name, address=address)
                self._gone[name] = VanishedHost(self._feed.hosts[name], self._now())
            for news in mapnews.services_of(self._feed.hosts, hosts):
                log.info(news.event, **news.fields)
            changed = fresh.trust if fresh.trust != self._trust.trust else None
            self._feed.change(view.revision, hosts.values(), self._feed.hosts.keys() - hosts.keys(), changed)
        self._see(hosts.values())
        self._watching.namesakes.replace(refused)
        self._watching.servers.replace(servers)
        self._trust = fresh
        self._watching.feed, self._watching.revoked = self._feed, fresh.revoked
        self._watching.issuers = fresh.issuers
        self._watching.publish()
        return view.revision

    def _see(self, hosts: Iterable[HostRecord]) -> None:
        """Say, once, which services have one address inside containers."""
        for record in hosts:
            for line in self._addresses.see(offer.name for offer in record.services):
                log.warning("two services have one address", kind=(line,), error=line)

    @staticmethod
    def _put(view: TrustView, key: str, value: bytes | None) -> bool:
        try:
            return view.put(key, value)
        except ValueError:
            raise _unreadable(key) from None

    def _apply(self, revision: int, changes: Sequence[KeyChange]) -> None:
        feed = self._feed
        assert feed is not None
        put: list[HostRecord] = []
        gone: list[str] = []
        left: set[str] = set()
        changed: TrustBundle | None = None
        for change in changes:
            if change.key.startswith(HOSTS):
                if change.value is None:
                    gone.append(change.key.removeprefix(HOSTS))
                else:
                    put.append(_record(change.key, change.value))
            elif change.key.startswith(NAMESAKES):
                self._watching.namesakes.put(change.key.removeprefix(NAMESAKES), change.value)
            elif change.key.startswith(SERVERS):
                self._watching.servers.put(change.key.removeprefix(SERVERS), change.value)
            elif change.key.startswith(LEFT):
                if change.value is not None:
                    left.add(change.key.removeprefix(LEFT))
            elif self._put(self._trust, change.key, change.value):
                changed = self._trust.trust
                self._watching.revoked, self._watching.issuers = self._trust.revoked, self._trust.issuers
        for record in put:
            self._tell(feed.hosts.get(record.name), record)
        self._see(put)
        for name in gone:
            before = feed.hosts.get(name)
            if before is not None and name not in left:
                self.vanished += 1
                self._gone[name] = VanishedHost(before, self._now())
                log.warning("host has vanished: its lease is over", kind=(name,), host=name, address=before.address)
            self._tell(before, None)
        if feed.change(revision, put, gone, changed):
            self._watching.publish()

    @staticmethod
    def _tell(before: HostRecord | None, now: HostRecord | None) -> None:
        for news in mapnews.changes(before, now):
            log.info(news.event, **news.fields)


def _record(key: str, value: bytes) -> HostRecord:
    """Raises StoreError: a map without one of its hosts would be told as if that host had left."""
    try:
        return msgspec.json.decode(value, type=HostRecord)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _unreadable(key) from None


def _unreadable(key: str) -> StoreError:
    return StoreError(f"the store's {key} is not one of this version")
