"""The file of the SQLite store: plain calls that block; `control.store.sqlite` has the thread that makes them.

One connection, in SQLite's exclusive locking mode: its lock keeps every other process out, a second control server as
well, and goes with the process, however that ends. WAL with ``synchronous=FULL``: a transaction that has been committed
is on the disk. All calls between `begin` and `end` are one transaction, so that many commits share one fsync; each
still has a revision of its own.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence

from control.base.errors import StartError
from control.store import schema
from control.store.base import (
    Commit,
    Compacted,
    Condition,
    Conflict,
    Item,
    KeyChange,
    LeaseGone,
    Put,
    StoreError,
    StoreSnapshot,
    after_prefix,
)

HISTORY_AGE = 600.0
"""Seconds that changes are kept for watchers that were away; who was away longer reads everything again."""
HISTORY_CHANGES = 50_000
"""Changes kept at most, whatever their age: 1,000 hosts that all register 50 times."""
HISTORY_BYTES = 64 << 20
"""Bytes of values kept at most in the history."""
COMPACT_SECONDS = 60.0
COMPACT_CHANGES = 5_000
"""The history is looked through when either has passed since the last time, with the next write."""

BUSY = 2.0
"""Seconds to wait for the lock at the start: the process before may be about to end."""

_REASONS = {
    sqlite3.SQLITE_BUSY: "locked by another process; is another control server running on it?",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_NOTADB: "not a store of Hostlane (not an SQLite file)",
    sqlite3.SQLITE_CORRUPT: "damaged; restore a backup, or remove the file to begin with an empty store",
    sqlite3.SQLITE_READONLY: "read-only",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened",
    sqlite3.SQLITE_IOERR: "the disk does not read or write",
}


def reason(error: sqlite3.Error) -> str:
    """What SQLite met, in words for who runs the server."""
    code = getattr(error, "sqlite_errorcode", 0)
    return _REASONS.get(code & 0xFF, str(error))


class Database:
    """One open file; calls come from one thread at a time, none after `close`.

    Raises StartError when the file cannot be opened, is locked, damaged, another program's or of a newer version.
    ``clock``: seconds since 1970, for the age of the history.

    Attributes:
        epoch: see `control.store.base.Store`.
        committed: commits since the last `begin`, in order.
        full: whether the disk took no write when the file was opened. What it holds can be read all the same.
    """

    def __init__(self, path: str, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self.committed: list[Commit] = []
        self.full = False
        self._clock = clock
        self._compacted_at = clock()
        self._since = 0
        _create(path)
        # SQLite would tell it in several ways, none of them plain.
        if not all(os.access(place, os.R_OK | os.W_OK, effective_ids=True) for place in (path, _directory(path))):
            raise StartError(f"{path}: permission denied; the file and its directory must be writable")
        self._connection = sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False)
        try:
            self._open()
        except sqlite3.Error as error:
            self._connection.close()
            raise StartError(f"{path}: {reason(error)}") from None
        except BaseException:
            self._connection.close()
            raise

    def _open(self) -> None:
        run = self._connection.execute
        # Before anything else: then there is no shared-memory file, and the lock is held until the end.
        run("PRAGMA locking_mode = EXCLUSIVE")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        schema.prepare(self._connection, self.path)
        (verdict,) = run("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise StartError(f"{self.path}: {_REASONS[sqlite3.SQLITE_CORRUPT]}")
        # A write, so that what cannot be written to is found now: this one, unlike an update to the same value, is made
        # even if it changes nothing. '' is also what a backup has.
        try:
            run(f"PRAGMA application_id = {schema.APPLICATION_ID}")
            run("UPDATE state SET epoch = CASE epoch WHEN '' THEN ? ELSE epoch END", [secrets.token_hex(8)])
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_FULL or not self._named():
                raise
            self.full = True
        self.epoch = self._named()

    def _named(self) -> str:
        (epoch,) = self._connection.execute("SELECT epoch FROM state").fetchone()
        return str(epoch)

    def close(self) -> None:
        """Puts what the WAL holds into the file itself."""
        self._connection.close()

    def begin(self) -> None:
        """Start a transaction. Raises StoreError."""
        self.committed = []
        self._run("BEGIN IMMEDIATE")

    def end(self) -> None:
        """Bring the transaction to the disk. Raises StoreError; then nothing of it has happened."""
        self._since += sum(len(commit.changes) for commit in self.committed)
        now = self._clock()
        # A clock that was set back makes the difference negative: then compact, too. Not for reads, which would fail
        # with it when the disk is full.
        due = self._since >= COMPACT_CHANGES or not 0 <= now - self._compacted_at < COMPACT_SECONDS
        if due and self.committed:
            self._compacted_at, self._since = now, 0
            self._compact(now)
        self._run("COMMIT")

    def undo(self) -> None:
        """Forget the transaction, if there is one."""
        self.committed = []
        if self._connection.in_transaction:
            try:
                self._connection.rollback()
            except sqlite3.Error:
                # The next `begin` fails, and its caller gets the error.
                pass

    def revision(self) -> int:
        (revision,) = self._run("SELECT revision FROM state").fetchone()
        return int(revision)

    def leases(self) -> dict[int, float]:
        """All leases, with the TTL of each."""
        return dict(self._run("SELECT id, ttl FROM leases").fetchall())

    def read(self, prefix: str) -> StoreSnapshot:
        where, bounds = _range(prefix)
        rows = self._run(f"SELECT key, value, revision, lease FROM items{where} ORDER BY key", bounds)
        return StoreSnapshot(self.revision(), tuple(map(Item._make, rows)))

    def find(self, keys: Sequence[str]) -> tuple[Item | None, ...]:
        query = "SELECT key, value, revision, lease FROM items WHERE key = ?"
        rows = (self._run(query, [key]).fetchone() for key in keys)
        return tuple(None if row is None else Item._make(row) for row in rows)

    def history(self, prefix: str, after: int) -> list[Commit]:
        """The commits after that revision, with their changes under the prefix. Raises Compacted."""
        revision, compacted = self._run("SELECT revision, compacted FROM state").fetchone()
        if not compacted <= after <= revision:
            raise Compacted(f"the history goes from revision {compacted} to {revision}; asked for: {after}")
        where, bounds = _range(prefix)
        where = f"{where} AND revision > ?" if where else " WHERE revision > ?"
        rows = self._run(f"SELECT revision, key, value FROM changes{where} ORDER BY revision, key", [*bounds, after])
        commits: dict[int, list[KeyChange]] = {}
        for number, key, value in rows:
            commits.setdefault(number, []).append(KeyChange(key, value))
        return [Commit(number, tuple(changes)) for number, changes in commits.items()]

    def commit(self, when: Sequence[Condition], put: Sequence[Put], delete: Sequence[str]) -> int:
        """See `control.store.base.Store.commit`; nothing is changed when it raises Conflict or LeaseGone."""
        for condition in when:
            if self._changed_in(condition.key) != condition.revision:
                raise Conflict(condition.key)
        for item in put:
            if item.lease and not self._run("SELECT 1 FROM leases WHERE id = ?", [item.lease]).fetchone():
                raise LeaseGone(f"{item.key}: its lease is gone")
        revision = self.revision() + 1
        for item in put:
            self._run("INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?)", [item.key, item.value, revision, item.lease])
        changes = [KeyChange(item.key, item.value) for item in put]
        changes += [KeyChange(key, None) for key in delete if self._delete(key)]
        return self._note(revision, changes)

    def grant(self, lease: int, ttl: float) -> None:
        self._run("INSERT INTO leases VALUES (?, ?)", [lease, ttl])

    def revoke(self, *leases: int) -> None:
        """End leases and their items, each lease in a commit of its own."""
        for lease in leases:
            keys = [key for (key,) in self._run("SELECT key FROM items WHERE lease = ? AND lease != 0", [lease])]
            for key in keys:
                self._delete(key)
            self._run("DELETE FROM leases WHERE id = ?", [lease])
            self._note(self.revision() + 1, [KeyChange(key, None) for key in keys])

    def backup(self, target: str) -> None:
        """Write a copy, whole or not at all; it gets an epoch of its own each time a store is begun with it.

        Outside a transaction. Raises StoreError; a file that is there already is an error.
        """
        partial = f"{target}.partial"
        try:
            if os.path.exists(target):
                raise StoreError(f"{target}: exists already")
            _create(partial, new=True)
            try:
                self._run("VACUUM INTO ?", [partial])
                copy = sqlite3.connect(partial, isolation_level=None)
                try:
                    copy.execute("UPDATE state SET epoch = ''")
                finally:
                    copy.close()
                _sync(partial)
                os.link(partial, target)
                _sync(_directory(target))
            finally:
                os.unlink(partial)
        except sqlite3.Error as error:
            raise StoreError(f"{target}: {reason(error)}") from None
        except OSError as error:
            raise StoreError(f"{target}: {(error.strerror or 'cannot be written').lower()}") from None

    def _compact(self, now: float) -> None:
        """Drop history that is too old or too much."""
        rows = self._run("SELECT revision, at, coalesce(length(value), 0) FROM changes ORDER BY revision DESC")
        size = drop = 0
        for count, (revision, at, length) in enumerate(rows):
            size += length
            if count >= HISTORY_CHANGES or size > HISTORY_BYTES or at < now - HISTORY_AGE:
                drop = revision
                break
        rows.close()
        if drop:
            self._run("DELETE FROM changes WHERE revision <= ?", [drop])
            self._run("UPDATE state SET compacted = ?", [drop])

    def _note(self, revision: int, changes: list[KeyChange]) -> int:
        if not changes:
            return revision - 1
        now = self._clock()
        changes.sort()
        for key, value in changes:
            self._run("INSERT INTO changes VALUES (?, ?, ?, ?)", [revision, key, value, now])
        self._run("UPDATE state SET revision = ?", [revision])
        self.committed.append(Commit(revision, tuple(changes)))
        return revision

    def _changed_in(self, key: str) -> int:
        row = self._run("SELECT revision FROM items WHERE key = ?", [key]).fetchone()
        return int(row[0]) if row else 0

    def _delete(self, key: str) -> bool:
        return self._run("DELETE FROM items WHERE key = ?", [key]).rowcount > 0

    def _run(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        try:
            return self._connection.execute(statement, values)
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {reason(error)}") from None


def _range(prefix: str) -> tuple[str, list[str]]:
    return (" WHERE key >= ? AND key < ?", [prefix, after_prefix(prefix)]) if prefix else ("", [])


def _directory(path: str) -> str:
    return os.path.dirname(path) or "."


def _create(path: str, new: bool = False) -> None:
    """Make an empty file that only its owner can read, if there is none (`new`: there must be none)."""
    if not new and os.path.isdir(path):
        raise StartError(f"{path}: a directory; allowed: the path of a file")
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        _sync(_directory(path))
    except FileExistsError:
        if new:
            raise
    except OSError as error:
        if new:
            raise
        why = (error.strerror or "cannot be made").lower()
        if not os.path.isdir(_directory(path)):
            why = "no such directory; hostlane control init makes it"
        raise StartError(f"{path}: {why}") from None


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
