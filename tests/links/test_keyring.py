from __future__ import annotations

import errno
import os
import shutil
import ssl
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from proxy.config import schema as config
from proxy.config.schema import TlsFiles
from proxy.demo.certificates import CertificateAuthority, write
from proxy.errors import ConfigError
from proxy.links.credentials import RequiredIdentity
from proxy.links.keyring import Keyring

pytestmark = pytest.mark.failure(12)

CA = CertificateAuthority()
ME = RequiredIdentity("hostlane", "host-a")
IN_USE = "new certificate files in use"
REFUSED = "new certificate files refused, the old ones stay in use"

Logs = list[MutableMapping[str, Any]]


@pytest.fixture
def logs() -> Iterator[Logs]:
    with capture_logs() as entries:
        yield entries


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring(TlsFiles(**CA.write(tmp_path, "host-a")), ME)


def events(logs: Logs) -> list[str]:
    return [entry["event"] for entry in logs]


def look(keyring: Keyring, times: int = 2) -> None:
    for _ in range(times):
        keyring.look()


def test_nothing_new(keyring: Keyring, logs: Logs) -> None:
    before = keyring.current
    look(keyring, 5)
    assert keyring.current is before
    assert logs == []


def test_new_files_are_used_when_two_looks_agree(keyring: Keyring, tmp_path: Path, logs: Logs) -> None:
    before = keyring.current
    CA.write(tmp_path, "host-a")
    keyring.look()
    assert keyring.current is before
    keyring.look()
    assert keyring.current is not before
    look(keyring, 3)
    assert events(logs) == [IN_USE]


def test_a_ca_is_distrusted_at_once_by_a_host_that_has_its_certificate_from_it(
    keyring: Keyring, tmp_path: Path, logs: Logs
) -> None:
    """Who takes a CA out of the bundle may do so because its key is stolen."""
    before = keyring.current.accepting.get_ca_certs(binary_form=True)
    (tmp_path / "ca.pem").write_bytes(CertificateAuthority().certificate)
    look(keyring)
    assert events(logs) == [IN_USE]
    [trusted] = keyring.current.accepting.get_ca_certs(binary_form=True)
    assert trusted not in before


@pytest.mark.failure("30")
@pytest.mark.parametrize("way", ["written over", "another file", "a link to another directory"])
def test_what_looks_the_same_from_outside_is_read(tmp_path: Path, logs: Logs, way: str) -> None:
    """Another CA of the same size, written at the same time: on a file system that counts in seconds, by ``cp -p``, or
    out of an archive that was made to be reproducible."""
    one, other = CertificateAuthority().certificate, CertificateAuthority().certificate
    size = max(len(one), len(other)) + 1
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder, ca in zip(folders, (one, other), strict=True):
        folder.mkdir()
        CA.write(folder, "host-a")
        with (folder / "ca.pem").open("ab") as file:
            file.write(ca.ljust(size, b"\n"))
        os.utime(folder / "ca.pem", (1e9, 1e9))
    now = tmp_path / "now"
    now.symlink_to("one")
    names = {name: str(now / f"{name}.pem") for name in ("certificate", "key", "ca")}
    for name in ("certificate", "key"):
        shutil.copy(folders[0] / f"{name}.pem", folders[1])
    keyring = Keyring(TlsFiles(**names), ME)
    match way:
        case "written over":
            (now / "ca.pem").write_bytes((folders[1] / "ca.pem").read_bytes())
            os.utime(now / "ca.pem", (1e9, 1e9))
        case "another file":
            (folders[1] / "ca.pem").replace(folders[0] / "ca.pem")
        case _:
            (tmp_path / "then").symlink_to("other")
            (tmp_path / "then").replace(now)
    look(keyring)
    assert events(logs) == [IN_USE]
    assert ssl.PEM_cert_to_DER_cert(other.decode()) in keyring.current.accepting.get_ca_certs(binary_form=True)


def test_a_certificate_is_not_read_before_its_key(keyring: Keyring, tmp_path: Path, logs: Logs) -> None:
    """Whoever writes the files does so one after the other; nobody is told of the moment in between."""
    certificate, key = CA.issue("spiffe://hostlane/host/host-a")
    (tmp_path / "certificate.pem").write_bytes(certificate)
    keyring.look()
    (tmp_path / "key.pem").write_bytes(key)
    look(keyring, 2)
    assert events(logs) == [IN_USE]


@pytest.mark.parametrize("name", ["certificate", "key", "ca"])
@pytest.mark.parametrize("gone", [False, True])
def test_a_bad_file_keeps_the_old_ones_and_says_so_once(
    keyring: Keyring, tmp_path: Path, logs: Logs, name: str, gone: bool
) -> None:
    before, path = keyring.current, tmp_path / f"{name}.pem"
    good = path.read_bytes()
    path.unlink() if gone else path.write_text("junk")
    look(keyring, 10)
    assert keyring.current is before
    assert events(logs) == [REFUSED]
    assert logs[0]["log_level"] == "warning"
    assert logs[0]["error"].startswith(f"links.tls.{name}: {path}: ")
    path.write_bytes(good)
    look(keyring, 10)
    assert events(logs) == [REFUSED, IN_USE]


def test_a_machine_that_lacks_something_for_a_moment(
    keyring: Keyring, tmp_path: Path, logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Good files that could not be taken over, with no descriptor left, are taken over when they can be."""
    before = keyring.current

    def none_left(name: str) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(os, "memfd_create", none_left)
        CA.write(tmp_path, "host-a")
        look(keyring, 5)
    assert keyring.current is before
    keyring.look()
    assert keyring.current is not before
    assert [(entry["event"], entry.get("error")) for entry in logs] == [
        (REFUSED, "links.tls: Too many open files"), (IN_USE, None),
    ]  # fmt: skip


def test_each_bad_file_is_news(keyring: Keyring, tmp_path: Path, logs: Logs) -> None:
    for text in ("junk", "other junk", "more"):
        (tmp_path / "key.pem").write_text(text)
        look(keyring, 4)
    assert events(logs) == [REFUSED] * 3


def test_a_certificate_for_another_host_is_a_bad_file(keyring: Keyring, tmp_path: Path, logs: Logs) -> None:
    before = keyring.current
    CA.write(tmp_path, "host-b")
    look(keyring)
    assert keyring.current is before
    assert "spiffe://hostlane/host/host-b" in logs[0]["error"]


class Clock:
    """Seconds since 1970, as the test says."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def test_a_certificate_that_runs_out_is_said_twice_and_stays(tmp_path: Path, logs: Logs) -> None:
    good = Keyring(TlsFiles(**CA.write(tmp_path, "host-a")), ME).current
    clock = Clock(good.not_before)
    keyring = Keyring(TlsFiles(**CA.write(tmp_path, "host-a")), ME, clock)
    steps = []
    for percent in (0, 50, 66, 67, 80, 99, 101, 150):
        clock.now = (
            keyring.current.not_before + (keyring.current.not_after - keyring.current.not_before) * percent / 100
        )
        keyring.check_expiry()
        keyring.check_expiry()
        steps.append(len(logs))
    assert steps == [0, 0, 0, 1, 1, 1, 2, 2]
    assert [(entry["log_level"], entry["event"]) for entry in logs] == [
        ("warning", "this host's certificate expires soon"), ("error", "this host's certificate expired"),
    ]  # fmt: skip


def test_a_new_certificate_starts_afresh(tmp_path: Path, logs: Logs) -> None:
    keyring = Keyring(TlsFiles(**CA.write(tmp_path, "host-a")), ME)
    keyring._now = Clock(keyring.current.not_after - 1)
    keyring.check_expiry()
    CA.write(tmp_path, "host-a")
    keyring._now = Clock(keyring.current.not_before + 1)
    look(keyring)
    keyring.check_expiry()
    keyring._now = Clock(keyring.current.not_after - 1)
    keyring.check_expiry()
    assert events(logs) == ["this host's certificate expires soon", IN_USE, "this host's certificate expires soon"]


async def test_it_looks_all_the_time(keyring: Keyring, tmp_path: Path, logs: Logs) -> None:
    before = keyring.current
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keyring.watch)
        CA.write(tmp_path, "host-a")
        while keyring.current is before:
            await trio.sleep(0.05)
        nursery.cancel_scope.cancel()
    assert events(logs) == [IN_USE]


BASE = "host: host-a\nlinks: {{listen: 10.0.0.1:1, security: {}, tls: {{certificate: {}, key: {}, ca: {}}}}}\n"


def test_what_the_configuration_asks_for(tmp_path: Path) -> None:
    section = CA.write(tmp_path, "host-a")
    text = BASE.format("mtls", section["certificate"], section["key"], section["ca"])
    assert Keyring.from_config(config.parse(text, "f")) is not None
    assert Keyring.from_config(config.parse(text.replace("mtls", "none"), "f")) is None
    with pytest.raises(ConfigError):
        Keyring.from_config(config.parse(text.replace("host-a", "host-b", 1), "f"))


def test_files_that_are_bad_to_begin_with(tmp_path: Path) -> None:
    section = write(tmp_path, b"", b"", b"")
    with pytest.raises(ConfigError) as caught:
        Keyring(TlsFiles(**section), ME)
    assert len(caught.value.problems) == 3
