from __future__ import annotations

import os
from pathlib import Path

import pytest

from control.api import certificates
from control.base.errors import StartError
from control.ca import root as ca
from control.ca.keyfiles import KeyFiles

NOW = 1_800_000_000.0


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "ca")


def test_the_first_ca(folder: str) -> None:
    keys = KeyFiles(folder)
    assert keys.roots() == []
    root = keys.create("m", NOW)
    assert sorted(os.listdir(folder)) == [f"{root.id}.key", f"{root.id}.pem"]
    assert os.stat(folder).st_mode & 0o777 == 0o700
    assert os.stat(f"{folder}/{root.id}.key").st_mode & 0o777 == 0o600
    fresh = KeyFiles(folder)
    fresh.check()
    assert [ca.root_id(each) for each in fresh.roots()] == [root.id]
    found = fresh.key(root.id)
    assert found is not None
    assert ca.key_id(found) == root.id
    assert fresh.key("0" * 16) is None


def test_it_is_not_overwritten(folder: str) -> None:
    root = KeyFiles(folder).create("m", NOW)
    with pytest.raises(StartError, match="there is a CA already, and it is not overwritten"):
        KeyFiles(folder).create("m", NOW)
    os.unlink(f"{folder}/{root.id}.pem")
    with pytest.raises(StartError, match=r"\.key: there is a CA already"):
        KeyFiles(folder).create("m", NOW)


def test_a_key_that_the_operator_keeps_elsewhere(folder: str, tmp_path: Path) -> None:
    place = str(tmp_path / "secret")
    root = KeyFiles(folder, [place]).create("m", NOW)
    assert os.listdir(folder) == [f"{root.id}.pem"]
    assert os.stat(place).st_mode & 0o777 == 0o600
    assert KeyFiles(folder).key(root.id) is None
    assert KeyFiles(folder, [place]).key(root.id) is not None


def test_a_key_that_the_operator_has_made(folder: str, tmp_path: Path) -> None:
    place, key = tmp_path / "secret", certificates.new_key()
    place.write_text(certificates.key_pem(key))
    place.chmod(0o640)
    root = KeyFiles(folder, [str(place)]).create("m", NOW)
    assert root.id == ca.key_id(key)
    assert os.listdir(folder) == [f"{root.id}.pem"]
    assert place.read_text() == certificates.key_pem(key)


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o666])
def test_a_key_that_strangers_can_read_or_change(folder: str, mode: int) -> None:
    root = KeyFiles(folder).create("m", NOW)
    path = f"{folder}/{root.id}.key"
    os.chmod(path, mode)
    keys = KeyFiles(folder)
    with pytest.raises(StartError, match=f"{path}: found mode {mode:04o}; allowed: 0600"):
        keys.check()
    assert keys.key(root.id) is None
    os.chmod(path, 0o600)
    assert keys.key(root.id) is not None


@pytest.mark.parametrize("name", ["x.key", "x.pem"])
def test_junk(folder: str, name: str) -> None:
    os.mkdir(folder)
    Path(folder, name).write_bytes(b"junk\xff")
    Path(folder, name).chmod(0o600)
    with pytest.raises(StartError, match=f"{folder}/{name}: found no "):
        KeyFiles(folder).check()
        KeyFiles(folder).roots()


def test_a_named_file_that_is_missing(folder: str) -> None:
    with pytest.raises(StartError, match="/nowhere: no such file"):
        KeyFiles(folder, ["/nowhere"]).check()


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="not a directory"):
        KeyFiles(str(tmp_path / "file" / "ca")).create("m", NOW)


def test_a_key_that_is_put_there_later_is_found(folder: str, tmp_path: Path) -> None:
    keys, there = KeyFiles(folder), KeyFiles(str(tmp_path / "other"))
    root = there.create("m", NOW)
    assert keys.key(root.id) is None
    os.mkdir(folder)
    os.rename(f"{there.directory}/{root.id}.key", f"{folder}/{root.id}.key")
    assert keys.key(root.id) is not None


def test_one_that_was_dropped_is_kept_aside(folder: str) -> None:
    keys = KeyFiles(folder)
    old, new = keys.create("m", NOW), keys.add("m", NOW + 1)
    assert [ca.root_id(each) for each in keys.roots()] == [old.id, new.id]
    keys.retire(old.id)
    keys.retire(old.id)
    assert [ca.root_id(each) for each in keys.roots()] == [new.id]
    assert keys.key(old.id) is None
    assert f"{old.id}.key.dropped" in os.listdir(folder)
