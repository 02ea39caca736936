from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from control.cli.certificatecommands import certificates
from proxy.config.schema import TlsFiles
from proxy.links.credentials import RequiredIdentity, read


def new(place: Path, *arguments: str) -> Result:
    return CliRunner().invoke(certificates, ["new", "--directory", str(place), *arguments])


def credentials(place: Path, host: str, mesh: str = "hostlane") -> float:
    """Until when a host's files are good, as the proxy reads them."""
    files = TlsFiles(certificate=f"{place}/{host}.pem", key=f"{place}/{host}.key", ca=f"{place}/ca.pem")
    return read(files, RequiredIdentity(mesh, host), time.time()).not_after


def test_a_ca_and_hosts(tmp_path: Path) -> None:
    place = tmp_path / "made"
    done = new(place, "--days", "7", "host-a", "host-b")
    assert (done.exit_code, done.stderr) == (0, "")
    for host in ("host-a", "host-b"):
        assert credentials(place, host) - time.time() == pytest.approx(7 * 86400, abs=60)
    assert sorted(path.name for path in place.iterdir() if path.stat().st_mode & 0o077 == 0) == [
        "ca.key", "host-a.key", "host-b.key",
    ]  # fmt: skip


def test_the_ca_stays_and_what_is_there_is_not_replaced_by_itself(tmp_path: Path) -> None:
    assert new(tmp_path, "--mesh", "lab", "host-a").exit_code == 0
    ca, certificate = (tmp_path / "ca.pem").read_bytes(), (tmp_path / "host-a.pem").read_bytes()
    done = new(tmp_path, "host-b", "host-a")
    assert (done.exit_code, done.stderr) == (1, f"hostlane: {tmp_path}/host-a.pem: exists; --renew replaces it\n")
    assert not (tmp_path / "host-b.pem").exists()
    assert new(tmp_path, "host-b").exit_code == 0
    (made,) = json.loads(new(tmp_path, "--renew", "--json", "host-a").stdout)
    assert made["uri"] == "spiffe://lab/host/host-a"
    assert (tmp_path / "host-a.pem").read_bytes() != certificate
    assert (tmp_path / "ca.pem").read_bytes() == ca
    assert credentials(tmp_path, "host-a", "lab") == made["expires"]


def test_what_cannot_be_is_one_line(tmp_path: Path) -> None:
    place = tmp_path / "x"
    assert new(place, "host-a").exit_code == 0
    done = new(place, "--mesh", "other", "host-b")
    assert (done.exit_code, done.stderr) == (
        1, f"hostlane: {place}/ca.pem: found a CA of mesh hostlane; allowed: --mesh hostlane, or another directory\n",
    )  # fmt: skip
    assert new(place, "Host_A").exit_code == 2
    assert new(place).exit_code == 2
    (place / "ca.key").unlink()
    assert new(place, "host-b").stderr == f"hostlane: {place}/ca.key: no such file\n"
    (place / "ca.key").write_bytes((place / "host-a.key").read_bytes())
    assert "found another key than that of" in new(place, "host-b").stderr
    (tmp_path / "file").write_text("")
    done = new(tmp_path / "file" / "below", "host-a")
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
