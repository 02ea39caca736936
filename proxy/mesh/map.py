"""The map of the mesh: the hosts that the control plane tells of, and what becomes of those that it no longer tells of.

Two kinds of answer look alike: "this host has left", and "I do not know this host (any more)". The first takes a host
off the map at once. The second must not, or a control plane that lost its store, was restored from an old copy, or was
cut off from all hosts for longer than their leases would wipe the map of a mesh that is alive and well. So whatever is
missing then is kept *unconfirmed*, and goes only when it has not registered again for `KEPT` seconds. (Eureka calls the
same precaution self-preservation.)

The second kind is recognised by

- another epoch: another store than before, in which the hosts may not have registered yet;
- a revision that went backwards: the store is an old copy, or this server lags behind;
- the control plane having lost sight of this very host, which is there: `doubt`, or its own name missing.

Time counts only while the control plane is heard (`watching`): nobody can register at one that is gone, so its absence
makes nobody leave.
"""

from __future__ import annotations

from collections.abc import Iterable

from control.api.mesh import HostRecord, MapChanges, MapSnapshot, WatchMessage

KEPT = 60.0
"""Seconds that a host is kept unconfirmed. Hosts that are there register again within seconds: every third of a lease
(15 s by default) they say that they are alive, and are told then if nobody knows them; the rest is for a crowd of hosts
that finds a control server which has just come up."""


class MeshMap:
    """See the module's text; sans-IO. Times are seconds by any clock that never goes back.

    Args:
        own: this host's name. Its record is on the map like all others.

    Attributes:
        epoch, revision: of the message that the map is as new as; ``""`` and 0 before the first one.
        hosts: by name; the unconfirmed ones too.
    """

    def __init__(self, own: str) -> None:
        self.epoch, self.revision = "", 0
        self.hosts: dict[str, HostRecord] = {}
        self._own = own
        self._kept_until: dict[str, float] = {}
        self._doubt_until = 0.0
        self._heard = self._heard_at = 0.0

    @property
    def unconfirmed(self) -> frozenset[str]:
        """Names of hosts that the control plane does not tell of, and that are kept for now."""
        return frozenset(self._kept_until)

    def restore(self, epoch: str, revision: int, hosts: Iterable[HostRecord]) -> None:
        """Begin with an earlier map. The control plane's next answer is judged against it."""
        self.epoch, self.revision = epoch, revision
        self.hosts = {record.name: record for record in hosts if record.name != self._own}

    def watching(self, now: float) -> None:
        """A watch has begun: the time without one does not count towards `KEPT`."""
        self._heard_at = now

    def doubt(self) -> None:
        """The control plane had lost sight of this host, and so perhaps of others: what goes missing within `KEPT`
        seconds is kept as unconfirmed.
        """
        self._doubt_until = self._heard + KEPT

    def take(self, message: WatchMessage, now: float) -> dict[str, HostRecord | None]:
        """Take a message of the watch over. Returns what in `hosts` has changed: by name, what stood there before
        (None: nothing). It costs what the message tells, not what there is.
        """
        self._heard += max(0.0, now - self._heard_at)
        self._heard_at = now
        changed: dict[str, HostRecord | None] = {}
        if isinstance(message, MapSnapshot):
            self._take_snapshot(message, changed)
        elif isinstance(message, MapChanges) and message.revision > self.revision:
            self._take_changes(message, changed)
        self._expire(changed)
        return changed

    def _take_snapshot(self, snapshot: MapSnapshot, changed: dict[str, HostRecord | None]) -> None:
        found = {record.name: record for record in snapshot.hosts}
        other = self.epoch not in ("", snapshot.epoch) or snapshot.revision < self.revision
        if self.hosts and (other or (self._own in self.hosts and self._own not in found)):
            self.doubt()
        missing = [name for name in self.hosts if name not in found]
        self.epoch, self.revision = snapshot.epoch, snapshot.revision
        self._miss(missing, changed)
        self._put(snapshot.hosts, changed)

    def _take_changes(self, changes: MapChanges, changed: dict[str, HostRecord | None]) -> None:
        there = {record.name for record in changes.put}
        gone = [name for name in changes.gone if name not in there]
        if self._own in gone:
            self.doubt()
        self.revision = changes.revision
        self._miss(gone, changed)
        self._put(changes.put, changed)

    def _put(self, records: Iterable[HostRecord], changed: dict[str, HostRecord | None]) -> None:
        for record in records:
            self._kept_until.pop(record.name, None)
            before = self.hosts.get(record.name)
            if before != record:
                self.hosts[record.name] = record
                changed[record.name] = before

    def _miss(self, names: Iterable[str], changed: dict[str, HostRecord | None]) -> None:
        """The control plane does not tell of these hosts, or no longer: keep them unconfirmed, or take them off."""
        doubtful = self._heard < self._doubt_until
        for name in names:
            if doubtful and name in self.hosts and name != self._own:
                self._kept_until.setdefault(name, self._heard + KEPT)
            elif name not in self._kept_until and name in self.hosts:
                changed[name] = self.hosts.pop(name)

    def _expire(self, changed: dict[str, HostRecord | None]) -> None:
        over = [name for name, until in self._kept_until.items() if until <= self._heard]
        for name in over:
            del self._kept_until[name]
            changed[name] = self.hosts.pop(name)
