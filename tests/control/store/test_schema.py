from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.base.errors import StartError
from control.store import schema


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    yield connection
    connection.close()


def version(connection: sqlite3.Connection) -> int:
    return connection.execute("PRAGMA user_version").fetchone()[0]


def test_an_empty_file_gets_the_newest_version(connection: sqlite3.Connection) -> None:
    for _ in range(2):
        schema.prepare(connection, "store.db")
        assert version(connection) == len(schema.MIGRATIONS)
        assert connection.execute("SELECT epoch, revision FROM state").fetchall() == [("", 1)]


def test_an_old_file_is_brought_up_step_by_step(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema.prepare(connection, "store.db")
    connection.execute("INSERT INTO items VALUES ('a', x'00', 1, 0)")
    steps = [("ALTER TABLE items ADD COLUMN note TEXT",), ("UPDATE items SET note = 'kept'",)]
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, *steps))
    schema.prepare(connection, "store.db")
    assert version(connection) == 3
    assert connection.execute("SELECT key, note FROM items").fetchall() == [("a", "kept")]


def test_a_step_happens_as_a_whole_or_not_at_all(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = ("CREATE TABLE half (a)", "INSERT INTO nothing VALUES (1)")
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, broken))
    with pytest.raises(sqlite3.OperationalError):
        schema.prepare(connection, "store.db")
    assert version(connection) == 1
    assert connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'half'").fetchall() == []


def test_a_newer_version_is_refused(connection: sqlite3.Connection) -> None:
    schema.prepare(connection, "store.db")
    connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StartError) as caught:
        schema.prepare(connection, "/x/store.db")
    assert str(caught.value) == (
        "/x/store.db: a store of version 99, made by a newer Hostlane; allowed: up to version 1"
    )


@pytest.mark.parametrize("statement", ["CREATE TABLE theirs (a)", "PRAGMA user_version = 1"])
def test_somebody_elses_file_is_refused(connection: sqlite3.Connection, statement: str) -> None:
    connection.execute(statement)
    with pytest.raises(StartError, match="another program's SQLite file"):
        schema.prepare(connection, "store.db")
