"""The map on disk: whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.api.mesh import HostRecord, ServiceOffer
from proxy.mesh import mapfile
from proxy.mesh.mapfile import StoredMap, UnreadableMap, path_of, read, write

MAP = StoredMap(
    mesh="shop",
    host="host-a",
    epoch="one",
    revision=7,
    confirmed_at=1e9,
    hosts=(HostRecord(name="host-b", address="10.0.0.2:7600", instance="i", services=(ServiceOffer(name="redis"),)),),
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = path_of(str(tmp_path))
    assert read(path, "shop", "host-a") is None
    write(path, MAP)
    assert read(path, "shop", "host-a") == MAP
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert os.listdir(tmp_path) == ["map.json"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "found no map"),
        (b"{", "found no map"),
        (b"\xff\xfe", "found no map"),
        (b"[" * 100_000, "found no map"),
        (b'{"version":1}', "found no map"),
        (b'{"version":2,"mesh":"shop","host":"host-a","epoch":"","revision":0,"confirmed_at":0,"hosts":[]}',
         "found a map of version 2; allowed: version 1"),
        (b'{"version":1,"mesh":"shop","host":"b\\n","epoch":"","revision":0,"confirmed_at":0,"hosts":[]}',
         'found the map of "b\\n in mesh shop"; allowed: that of this host in its mesh'),
    ],
)  # fmt: skip
def test_what_is_none_is_said_in_one_line(content: bytes, why: str, tmp_path: Path) -> None:
    path = path_of(str(tmp_path))
    Path(path).write_bytes(content)
    with pytest.raises(UnreadableMap) as caught:
        read(path, "shop", "host-a")
    assert str(caught.value).startswith(f"{path}: {why}")
    assert "\n" not in str(caught.value)


@given(st.integers(0, 1000), st.binary(max_size=8))
def test_a_damaged_file_is_a_map_or_unreadable(cut: int, damage: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = path_of(folder)
        write(path, MAP)
        content = Path(path).read_bytes()
        Path(path).write_bytes(content[:cut] + damage + content[cut + len(damage) :])
        with suppress(UnreadableMap):
            read(path, "shop", "host-a")


def test_a_directory_and_a_huge_file(tmp_path: Path) -> None:
    with pytest.raises(UnreadableMap, match="is a directory"):
        read(str(tmp_path), "shop", "host-a")
    path = path_of(str(tmp_path))
    with open(path, "wb") as file:
        file.truncate(mapfile.MAX_BYTES + 1)
    with pytest.raises(UnreadableMap, match="found more than 64 MiB"):
        read(path, "shop", "host-a")


@pytest.mark.parametrize("failing", ["fsync", "rename"])
def test_one_that_cannot_be_written_leaves_the_old_one(failing: str, tmp_path: Path) -> None:
    path = path_of(str(tmp_path))
    write(path, MAP)
    with patch.object(mapfile.os, failing, side_effect=OSError(28, "No space left on device")), pytest.raises(OSError):
        write(path, StoredMap(mesh="shop", host="host-a", epoch="", revision=0, confirmed_at=0, hosts=()))
    assert read(path, "shop", "host-a") == MAP
    assert os.listdir(tmp_path) == ["map.json"]


def test_what_a_crash_left_is_written_over(tmp_path: Path) -> None:
    path = path_of(str(tmp_path))
    Path(f"{path}.new").write_bytes(b"half")
    write(path, MAP)
    assert read(path, "shop", "host-a") == MAP


def test_no_map_is_too_large_to_be_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapfile, "MAX_BYTES", 10)
    with pytest.raises(OSError, match="a map of more than"):
        write(path_of(str(tmp_path)), MAP)
