from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from control.api.certificates import key_pem, new_key
from control.cli import support
from control.cli.support import SupportPart, without_secrets
from tests.control.cli.conftest import Proxy

CONFIG = "host: a\nlinks:\n  listen: ${HL_SECRET}:7600\n  security: none\nrun_dir: %s\n"


def test_what_is_in_it(proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HL_SECRET", "192.0.2.77")
    file, out = tmp_path / "host.yaml", tmp_path / "out.tar.gz"
    file.write_text(CONFIG % tmp_path)
    proxy.answers["/links"] = []
    asked = {"links.json": ["links", "--json"], "status.json": ["status", "--json"]}
    monkeypatch.setattr(support, "ASKED", asked)
    done = CliRunner().invoke(support.support, ["--config", str(file), "--out", str(out)])
    assert (done.exit_code, done.stdout) == (0, f"written to {out}\n")
    assert out.stat().st_mode & 0o777 == 0o600
    with tarfile.open(out) as archive:
        found = {Path(entry.name).name: archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]
    assert found["links.json"] == b"[]\n"
    assert b"no such path /status" in found["status.json.stderr"], "what fails costs the rest nothing"
    assert {"version.json", "check.json", "configuration.yaml", "system.txt"} <= set(found)
    assert b"listen: (removed)" in found["configuration.yaml"].replace(b'"', b"")
    assert b"192.0.2.77" not in found["configuration.yaml"]
    assert CliRunner().invoke(support.support, ["--config", str(file), "--out", str(out)]).exit_code == 1


def test_secrets_are_taken_out_wherever_they_are() -> None:
    token, key = "hostlane1.eyJpZCI6IjE", key_pem(new_key())
    found = without_secrets(f'{{"token":"{token}"}} x\n{key}\ny password=abc, Bearer xyz'.encode())
    assert found == b'{"token":"(removed)"} x\n(removed)\n\ny password=(removed) Bearer (removed)'
    cut_off = without_secrets(key[:120].encode())
    assert cut_off == b"(removed)"


def test_a_command_that_is_not_there_is_noted() -> None:
    assert list(support._of("a.txt", ["/no/such/command"])) == [
        SupportPart("a.txt.failed", b"/no/such/command: no such file or directory\n")
    ]


def test_a_proxy_that_is_named_twice() -> None:
    assert CliRunner().invoke(support.support, ["--config", "a", "--socket", "b"]).exit_code == 2
