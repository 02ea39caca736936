"""The tables of the SQLite store, version by version."""

from __future__ import annotations

import sqlite3

from control.base.errors import StartError

APPLICATION_ID = 0x486C616E
"""``Hlan``, in the header of the file: SQLite's own way to tell whose a file is."""

MIGRATIONS = (
    (
        """CREATE TABLE state (
            one INTEGER PRIMARY KEY CHECK (one = 1), epoch TEXT NOT NULL, revision INTEGER NOT NULL,
            compacted INTEGER NOT NULL) STRICT""",
        "CREATE TABLE leases (id INTEGER PRIMARY KEY, ttl REAL NOT NULL) STRICT",
        """CREATE TABLE items (
            key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL, lease INTEGER NOT NULL)
            STRICT, WITHOUT ROWID""",
        "CREATE INDEX items_by_lease ON items (lease) WHERE lease != 0",
        """CREATE TABLE changes (
            revision INTEGER NOT NULL, key TEXT NOT NULL, value BLOB, at REAL NOT NULL, PRIMARY KEY (revision, key))
            STRICT, WITHOUT ROWID""",
        # The first commit is to have a revision above 1, as etcd's; epoch '' is replaced when the store is opened.
        "INSERT INTO state VALUES (1, '', 1, 0)",
    ),
)
"""The statements that lead from version N to N + 1; the file's version is SQLite's ``user_version``. What has been
released is never changed: add the next."""


def prepare(connection: sqlite3.Connection, path: str) -> None:
    """Bring the file to the newest version, each step a transaction of its own.

    Raises StartError for another program's file and for a version that this one does not know, sqlite3.Error for what
    SQLite cannot do. The connection is in autocommit mode.
    """
    version = _pragma(connection, "user_version")
    foreign = _pragma(connection, "application_id") != APPLICATION_ID
    if foreign and (version or connection.execute("SELECT 1 FROM sqlite_schema").fetchone()):
        raise StartError(f"{path}: another program's SQLite file, not a store of Hostlane")
    if version > len(MIGRATIONS):
        raise StartError(
            f"{path}: a store of version {version}, made by a newer Hostlane; allowed: up to version {len(MIGRATIONS)}"
        )
    for number in range(version, len(MIGRATIONS)):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in MIGRATIONS[number]:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {number + 1}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
