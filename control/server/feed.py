"""The map of a mesh as watchers get it (sans-IO): what it is now, and what has changed since any recent revision.

A watcher is one number, the revision that it has. What it is to be told next follows from that number alone: the last
state of whatever has changed since, so a slow watcher gets several changes as one and costs no memory. All watchers
that have the same revision, nearly always all of them, get the same bytes, encoded once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from control.api.mesh import HostRecord, MapChanges, MapHeartbeat, MapSnapshot, TrustBundle

__all__ = ["HISTORY", "LINES", "FeedLine", "MapFeed"]

HISTORY = 20_000
"""Names of changed hosts that are remembered: a mesh of 1,000 that registers twenty times over, in 2 MB."""

LINES = 64
"""Encoded lines that are kept until the next change, each from another revision on. Most watchers share one or two."""

_encode = msgspec.json.Encoder().encode


class FeedLine(NamedTuple):
    """A line for a watcher, and the revision that it has by then."""

    line: bytes
    revision: int


class _Step(NamedTuple):
    revision: int
    names: tuple[str, ...]
    trust: bool


class MapFeed:
    """See the module's text.

    Attributes:
        epoch: names the store's history.
        revision: of the last change. (A watcher may be ahead of it, if it watched another server before.)
        hosts: the map.
        trust: None as long as the mesh has no CA.
        services: how many offers the map has.
    """

    def __init__(
        self,
        epoch: str,
        revision: int,
        hosts: Mapping[str, HostRecord],
        trust: TrustBundle | None,
        history: int = HISTORY,
    ) -> None:
        self.epoch = epoch
        self.revision = revision
        self.hosts = dict(hosts)
        self.trust = trust
        self.services = sum(len(record.services) for record in self.hosts.values())
        self._most = history
        self._steps: deque[_Step] = deque()
        self._kept = 0
        self._floor = revision
        self._lines: dict[int, bytes] = {}
        self._whole: FeedLine | None = None

    def change(
        self, revision: int, put: Iterable[HostRecord] = (), gone: Iterable[str] = (), trust: TrustBundle | None = None
    ) -> bool:
        """The store has committed this; `trust`: None unless it has changed. Returns whether the feed has changed."""
        names: dict[str, None] = {}
        for record in put:
            before = self.hosts.get(record.name)
            if before != record:
                self.hosts[record.name] = record
                self.services += len(record.services) - (len(before.services) if before is not None else 0)
                names[record.name] = None
        for name in gone:
            before = self.hosts.pop(name, None)
            if before is not None:
                self.services -= len(before.services)
                names[name] = None
        if trust is not None:
            self.trust = trust
        if not names and trust is None:
            return False
        self.revision = revision
        self._steps.append(_Step(revision, tuple(names), trust is not None))
        self._kept += max(1, len(names))
        while self._kept > self._most:
            step = self._steps.popleft()
            self._kept -= max(1, len(step.names))
            self._floor = step.revision
        self._lines.clear()
        return True

    def begin(self, epoch: str, after: int) -> int | None:
        """The revision from which a new watcher goes on that has `after` of `epoch`; None: it needs the whole map."""
        return after if epoch == self.epoch and after >= self._floor else None

    def next(self, after: int | None) -> FeedLine | None:
        """What to tell a watcher that has `after` (None: nothing yet); None if it has everything."""
        if after is None or after < self._floor:
            return self._all(-1 if after is None else after)
        if after >= self.revision:
            return None
        return FeedLine(self._line(after), self.revision)

    def telling(self) -> None:
        """Watchers are about to be told what has changed: drop the encoded whole map, so that the next new watcher gets
        one of now.
        """
        self._whole = None

    def heartbeat(self, after: int) -> bytes:
        """The line for a watcher that has `after`, when nothing has changed for a while."""
        return _encode(MapHeartbeat(revision=after)) + b"\n"

    def snapshot(self) -> MapSnapshot:
        """The map as it is now."""
        return MapSnapshot(
            epoch=self.epoch,
            revision=self.revision,
            hosts=tuple(self.hosts[name] for name in sorted(self.hosts)),
            trust=self.trust,
        )

    def _all(self, after: int) -> FeedLine:
        """The whole map, as it was at some moment since the last `telling`; the next one has what has changed since.

        While a thousand hosts come there is a change for each that begins to watch, and the whole map must not be
        encoded for each. The map is never older than `after`, nor so old that the changes since are forgotten.
        """
        if self._whole is None or self._whole.revision < max(after, self._floor):
            self._whole = FeedLine(_encode(self.snapshot()) + b"\n", self.revision)
        return self._whole

    def _line(self, after: int) -> bytes:
        line = self._lines.get(after)
        if line is None:
            # Few changes in a long time, or one client that asks for one revision after the other.
            if len(self._lines) >= LINES:
                self._lines.clear()
            line = self._lines[after] = _encode(self._since(after)) + b"\n"
        return line

    def _since(self, after: int) -> MapChanges:
        names: set[str] = set()
        trust = False
        for step in reversed(self._steps):
            if step.revision <= after:
                break
            names.update(step.names)
            trust = trust or step.trust
        return MapChanges(
            revision=self.revision,
            put=tuple(self.hosts[name] for name in sorted(names) if name in self.hosts),
            gone=tuple(name for name in sorted(names) if name not in self.hosts),
            trust=self.trust if trust else None,
        )
