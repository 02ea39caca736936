"""Leases on the disk."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from control.api.mesh import AddressLease
from proxy.errors import NetError
from proxy.netdev.leases.leasefiles import LeaseFiles, is_sound

OWN = AddressLease(segment="lan", address="10.79.0.5/24", mac="02:aa:00:00:00:05", lease=60.0)
WEB = msgspec.structs.replace(OWN, address="10.79.0.6/24", part="@web:eth1")
WEB2 = msgspec.structs.replace(OWN, address="10.79.0.7/24", part="@web:eth2")
WEBLOG = msgspec.structs.replace(OWN, address="10.79.0.8/24", part="@weblog:eth1")


def test_kept_and_forgotten(tmp_path: Path) -> None:
    files = LeaseFiles(str(tmp_path / "state"))
    assert files.read("lan") is None
    assert files.parts() == []
    for lease in (OWN, WEBLOG, WEB, WEB2):
        files.write(lease)
    again = LeaseFiles(str(tmp_path / "state"))
    assert (again.read("lan"), again.read("lan", "@web:eth1"), again.read("wan")) == (OWN, WEB, None)
    assert again.parts("web") == [WEB, WEB2]
    assert len(again.parts()) == 3
    again.forget(WEB)
    again.forget(WEB)
    assert again.parts("web") == [WEB2]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"\xff", b"[]", msgspec.json.encode(WEB), msgspec.json.encode({"segment": "lan"}),
        msgspec.json.encode(msgspec.structs.replace(OWN, address="auto")),
        msgspec.json.encode(msgspec.structs.replace(OWN, mac="01:00:00:00:00:00")),
    ],
)  # fmt: skip
def test_a_file_of_no_use_is_none(tmp_path: Path, content: bytes) -> None:
    files = LeaseFiles(str(tmp_path))
    files.write(OWN)
    (tmp_path / "addresses" / "lan").write_bytes(content)
    assert files.read("lan") is None


def test_what_a_killed_writer_left_is_no_lease(tmp_path: Path) -> None:
    files = LeaseFiles(str(tmp_path))
    files.write(WEB)
    (tmp_path / "addresses" / "lan@web:eth1.0123abcd.new").write_bytes(msgspec.json.encode(WEB))
    assert files.parts("web") == [WEB]


def test_a_directory_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(NetError, match=r"^control.state_dir: .*/state/addresses: not a directory; the leased address"):
        LeaseFiles(str(tmp_path / "state")).write(OWN)


def test_sound() -> None:
    assert is_sound(OWN)
    assert is_sound(msgspec.structs.replace(OWN, mac=""))
    assert not is_sound(msgspec.structs.replace(OWN, address="127.0.0.1/8"))
