from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from control.base.errors import StartError
from control.store import database as databases
from control.store.base import Compacted, Put, StoreError
from control.store.database import Database


class Clock:
    """Seconds since 1970, as a test wants them."""

    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database(tmp_path: Path, clock: Clock) -> Iterator[Database]:
    database = Database(str(tmp_path / "store.db"), clock)
    yield database
    database.close()


def put(database: Database, key: str, value: bytes = b"") -> int:
    database.begin()
    revision = database.commit([], [Put(key, value)], [])
    database.end()
    return revision


def test_it_is_on_the_disk_and_nobody_elses(database: Database) -> None:
    run = database._connection.execute
    assert run("PRAGMA journal_mode").fetchone() == ("wal",)
    assert run("PRAGMA synchronous").fetchone() == (2,)
    put(database, "a")
    for path in (database.path, f"{database.path}-wal"):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_many_commits_in_one_transaction(database: Database) -> None:
    database.begin()
    revisions = [database.commit([], [Put("a", b"%d" % n)], []) for n in range(3)]
    database.end()
    assert revisions == [2, 3, 4]
    assert [commit.revision for commit in database.committed] == revisions
    assert database.history("", 1) == database.committed
    database.begin()
    assert database.committed == []
    database.end()


def test_undone_it_never_was(database: Database) -> None:
    put(database, "a")
    before = database.read("")
    database.begin()
    database.commit([], [Put("b", b"")], ["a"])
    database.undo()
    database.undo()
    assert database.committed == []
    assert database.read("") == before
    assert put(database, "b") == before.revision + 1


def test_what_was_written_is_there_again(database: Database, clock: Clock) -> None:
    revision = put(database, "a", b"1")
    database.begin()
    database.grant(7, 2.5)
    database.end()
    epoch = database.epoch
    database.close()
    again = Database(database.path, clock)
    assert again.epoch == epoch
    assert again.read("").revision == revision
    assert again.leases() == {7: 2.5}
    assert [commit.revision for commit in again.history("", 1)] == [revision]
    again.close()


def test_stores_have_epochs_of_their_own(database: Database, tmp_path: Path) -> None:
    other = Database(str(tmp_path / "other.db"))
    assert len(other.epoch) == len(database.epoch) == 16
    assert other.epoch != database.epoch
    other.close()


def test_history_ends_with_age(database: Database, clock: Clock) -> None:
    old = put(database, "a")
    clock.now += databases.HISTORY_AGE - 1
    young = put(database, "a")
    assert [commit.revision for commit in database.history("", 1)] == [old, young]
    clock.now += databases.COMPACT_SECONDS
    last = put(database, "b")
    with pytest.raises(Compacted, match=f"goes from revision {old} to {last}; asked for: 1"):
        database.history("", 1)
    assert [commit.revision for commit in database.history("a", old)] == [young]
    assert database.read("").items[0].revision == young


def test_history_ends_when_the_clock_was_set_back(database: Database, clock: Clock) -> None:
    put(database, "a")
    clock.now -= 86400
    put(database, "a")
    assert len(database.history("", 1)) == 2


@pytest.mark.failure(19, 20)
@pytest.mark.parametrize(("limit", "value"), [("HISTORY_CHANGES", 1), ("HISTORY_BYTES", 100)])
def test_history_is_bounded(database: Database, monkeypatch: pytest.MonkeyPatch, limit: str, value: int) -> None:
    monkeypatch.setattr(databases, "COMPACT_CHANGES", 5)
    monkeypatch.setattr(databases, limit, 3 * value)
    revisions = [put(database, "a", bytes(value)) for _ in range(20)]
    assert [commit.revision for commit in database.history("", revisions[-4])] == revisions[-3:]
    with pytest.raises(Compacted):
        database.history("", revisions[-5])
    assert database._connection.execute("SELECT count(*) FROM changes").fetchone() == (3,)


def test_a_full_disk_is_an_error_and_no_end(database: Database) -> None:
    put(database, "a")
    before = database.read("")
    (pages,) = database._connection.execute("PRAGMA page_count").fetchone()
    database._connection.execute(f"PRAGMA max_page_count = {pages}")
    database.begin()
    with pytest.raises(StoreError) as caught:
        database.commit([], [Put("big", bytes(1 << 16))], [])
    assert str(caught.value) == f"{database.path}: the disk is full"
    database.undo()
    assert database.read("") == before
    database._connection.execute("PRAGMA max_page_count = 100000")
    assert put(database, "big", bytes(1 << 16)) == before.revision + 1


@pytest.mark.failure("30a")
def test_reads_on_a_full_disk_compact_nothing(database: Database, clock: Clock) -> None:
    put(database, "a")
    (pages,) = database._connection.execute("PRAGMA page_count").fetchone()
    database._connection.execute(f"PRAGMA max_page_count = {pages}")
    clock.now += databases.HISTORY_AGE + databases.COMPACT_SECONDS
    changes = database._connection.total_changes
    database.begin()
    assert [item.key for item in database.read("").items] == ["a"]
    database.end()
    assert database._connection.total_changes == changes
    put(database, "a")
    assert len(database.history("", database.revision() - 1)) == 1, "the next write does"
    assert database._connection.execute("SELECT count(*) FROM changes").fetchone() == (1,)


def test_a_backup_is_whole_and_begins_a_history(database: Database, tmp_path: Path) -> None:
    revision = put(database, "a", b"1")
    target = str(tmp_path / "backup.db")
    database.backup(target)
    put(database, "a", b"2")
    assert os.listdir(tmp_path).count("backup.db.partial") == 0
    assert stat.S_IMODE(os.stat(target).st_mode) == 0o600
    epochs = set()
    for number in range(2):
        copy = tmp_path / f"restored-{number}.db"
        copy.write_bytes(Path(target).read_bytes())
        restored = Database(str(copy))
        assert restored.read("").revision == revision
        assert restored.read("").items[0].value == b"1"
        epochs.add(restored.epoch)
        restored.close()
    assert len({*epochs, database.epoch}) == 3


def test_a_backup_that_cannot_be_written(database: Database, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("mine")
    with pytest.raises(StoreError, match="there: exists already"):
        database.backup(str(tmp_path / "there"))
    assert (tmp_path / "there").read_text() == "mine"
    with pytest.raises(StoreError, match="none/x: no such file or directory"):
        database.backup(str(tmp_path / "none" / "x"))
    (tmp_path / "y.partial").write_text("somebody's")
    with pytest.raises(StoreError, match="exists"):
        database.backup(str(tmp_path / "y"))
    assert (tmp_path / "y.partial").read_text() == "somebody's"
    (tmp_path / "z.partial").mkdir()
    with pytest.raises(StoreError, match="exists"):
        database.backup(str(tmp_path / "z"))
    put(database, "a")


def refusal(path: object) -> str:
    with pytest.raises(StartError) as caught:
        Database(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


def test_files_that_are_no_store(tmp_path: Path) -> None:
    assert refusal(tmp_path) == "a directory; allowed: the path of a file"
    assert refusal(tmp_path / "none" / "store.db") == "no such directory; hostlane control init makes it"
    (tmp_path / "text").write_text("no database\n" * 1000)
    assert refusal(tmp_path / "text") == "not a store of Hostlane (not an SQLite file)"
    theirs = sqlite3.connect(tmp_path / "theirs.db")
    theirs.execute("CREATE TABLE theirs (a)")
    theirs.close()
    assert refusal(tmp_path / "theirs.db") == "another program's SQLite file, not a store of Hostlane"


def test_a_damaged_file(database: Database) -> None:
    for number in range(300):
        put(database, f"key/{number}", bytes(100))
    database.close()
    with open(database.path, "r+b") as file:
        file.seek(3 * 4096)
        file.write(os.urandom(4 * 4096))
    assert refusal(database.path) == "damaged; restore a backup, or remove the file to begin with an empty store"


def test_two_processes_do_not_share_a_file(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "BUSY", 0.1)
    program = "import sys; from control.store import database; database.BUSY = 0.1; database.Database(sys.argv[1])"
    other = subprocess.run([sys.executable, "-c", program, database.path], capture_output=True, text=True, timeout=60)
    assert other.stderr.splitlines()[-1] == (
        f"control.base.errors.StartError: {database.path}: locked by another process; "
        "is another control server running on it?"
    )
    assert refusal(database.path).startswith("locked by another process")
    put(database, "a")


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may do everything: be somebody else meanwhile."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_permissions() -> None:
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        path = os.path.join(place, "store.db")
        Database(path).close()
        os.chmod(path, 0o444)
        os.chmod(place, 0o555)
        with as_nobody():
            assert refusal(path) == "permission denied; the file and its directory must be writable"
            assert refusal(os.path.join(place, "new.db")) == "permission denied"
        os.chmod(path, 0o000)
        with as_nobody():
            assert refusal(path) == "permission denied; the file and its directory must be writable"
        os.chmod(place, 0o700)
