from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from control.base.system.ownfiles import release_lock, remove, take_lock
from tests.tools.sockets import fds_since, open_fds

pytestmark = pytest.mark.failure(15)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_one_holder_at_a_time_and_nothing_left(directory: int, tmp_path: Path) -> None:
    lock = take_lock(directory, "l")
    assert lock is not None
    assert take_lock(directory, "l") is None
    release_lock(directory, "l", lock)
    assert list(tmp_path.iterdir()) == []
    again = take_lock(directory, "l")
    assert again is not None
    release_lock(directory, "l", again)


def test_only_the_owner_may_open_it_and_no_child_inherits_it(directory: int, tmp_path: Path) -> None:
    lock = take_lock(directory, "l")
    assert lock is not None
    assert (tmp_path / "l").stat().st_mode & 0o777 == 0o600
    assert not os.get_inheritable(lock)
    release_lock(directory, "l", lock)


def test_a_file_left_behind_locks_nobody_out(directory: int, tmp_path: Path) -> None:
    (tmp_path / "l").write_text("of a process that was killed")
    lock = take_lock(directory, "l")
    assert lock is not None
    release_lock(directory, "l", lock)


def test_a_file_removed_between_open_and_lock_is_not_taken_for_the_lock(
    directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = take_lock(directory, "l")
    assert first is not None
    flock = fcntl.flock

    def holder_leaves_first(lock: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        assert first is not None
        release_lock(directory, "l", first)
        flock(lock, how)

    monkeypatch.setattr(fcntl, "flock", holder_leaves_first)
    second = take_lock(directory, "l")
    assert second is not None
    assert os.path.samestat(os.fstat(second), (tmp_path / "l").stat())
    assert take_lock(directory, "l") is None
    release_lock(directory, "l", second)


def test_between_open_and_lock_the_holder_leaves_and_another_comes(
    directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = take_lock(directory, "l")
    assert first is not None
    others: list[int | None] = []
    flock = fcntl.flock

    def another_is_quicker(lock: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        assert first is not None
        release_lock(directory, "l", first)
        others.append(take_lock(directory, "l"))
        flock(lock, how)

    monkeypatch.setattr(fcntl, "flock", another_is_quicker)
    assert take_lock(directory, "l") is None
    assert others[0] is not None
    release_lock(directory, "l", others[0])


def test_the_lock_of_a_successor_is_left_alone(directory: int, tmp_path: Path) -> None:
    mine = take_lock(directory, "l")
    assert mine is not None
    (tmp_path / "l").unlink()
    theirs = take_lock(directory, "l")
    assert theirs is not None
    release_lock(directory, "l", mine)
    assert take_lock(directory, "l") is None
    release_lock(directory, "l", theirs)


def test_a_link_is_not_followed(directory: int, tmp_path: Path) -> None:
    (tmp_path / "l").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError) as caught:
        take_lock(directory, "l")
    assert caught.value.errno == errno.ELOOP
    assert not (tmp_path / "elsewhere").exists()


def test_no_descriptor_is_lost_when_locking_fails(directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    before = open_fds()
    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(OSError) as caught:
        take_lock(directory, "l")
    assert caught.value.errno == errno.ENOLCK
    assert not fds_since(before)


def test_remove_takes_its_own_file_only(directory: int, tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    mine.touch()
    other.touch()
    status = mine.stat()
    remove(directory, "other", status)
    remove(directory, "missing", status)
    assert other.exists()
    remove(directory, "mine", status)
    assert not mine.exists()


def test_remove_does_not_follow_a_link_to_its_own_file(directory: int, tmp_path: Path) -> None:
    mine, link = tmp_path / "mine", tmp_path / "link"
    mine.touch()
    link.symlink_to(mine)
    remove(directory, "link", mine.stat())
    assert link.is_symlink()


def test_remove_never_raises(directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    mine = tmp_path / "mine"
    mine.touch()
    monkeypatch.setattr(os, "unlink", read_only)
    remove(directory, "mine", mine.stat())
    assert mine.exists()
