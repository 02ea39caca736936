"""``hostlane control`` as a process, and its set-up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from control.api import certificates
from control.ca import root as ca
from control.cli.controlcommands import control

PATIENCE = 20.0


@pytest.fixture
def directory() -> Iterator[Path]:
    # Short, because a Unix socket's path must be.
    with tempfile.TemporaryDirectory(prefix="hl-") as path:
        yield Path(path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(control, arguments)


def write(directory: Path, text: str = "") -> Path:
    file = directory / "control.yaml"
    file.write_text(
        f"name: control-1\nlisten: 127.0.0.1:7609\nrun_dir: {directory}/run\nstate_dir: {directory}/state\n{text}"
    )
    return file


def test_check(directory: Path) -> None:
    file = write(directory)
    assert run("--config", str(file), "--check").output == f"{file}: ok\n"
    result = run("--config", str(write(directory, "lease: 1\n")), "--check")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"{file}:5: lease: found 1, which has no unit; allowed: ")


def leaf() -> str:
    names = ca.CertificateNames.host("m", "a")
    root, key = ca.new_root("m", time.time()), certificates.new_key()
    return ca.issue(root, key.public_key(), names, time.time(), 3600.0).certificate


def test_check_reads_the_certificates_too(directory: Path) -> None:
    folder = directory / "state" / "ca"
    folder.mkdir(parents=True)
    file = write(directory)
    (folder / "a.pem").write_text(certificates.pem(ca.new_root("m", time.time()).certificate))
    assert run("--config", str(file), "--check").exit_code == 0
    for text in (leaf(), "no certificate"):
        (folder / "b.pem").write_text(text)
        result = run("--config", str(file), "--check")
        assert result.exit_code == 2
        assert result.stderr.startswith(f"{file}: {folder}/b.pem: found no CA certificate (PEM) with ")


def test_check_reads_those_of_etcd(directory: Path) -> None:
    bundle = directory / "etcd-ca.pem"
    file = write(directory, f"store: {{etcd: {{endpoints: [127.0.0.1:2379], ca: {bundle}}}}}\n")
    said = run("--config", str(file), "--check").stderr
    assert said.startswith(f"{file}: {bundle}: not the certificates of etcd's CA")
    bundle.write_text(leaf())
    result = run("--config", str(file), "--check")
    assert result.exit_code == 2
    assert result.stderr == (
        f'{file}: {bundle}: found the certificate of "CN=host/a", which is not a CA; allowed: CA certificates\n'
    )
    bundle.write_text(certificates.pem(ca.new_root("m", time.time()).certificate))
    assert run("--config", str(file), "--check").output == f"{file}: ok\n"


def test_usage() -> None:
    assert run().exit_code == 2
    assert "hostlane control init" in run().stderr
    assert run("--config", "x", "init").exit_code == 2
    assert run("--config", "/nowhere/f.yaml").stderr == "/nowhere/f.yaml: no such file\n"


def test_init_writes_what_is_not_there_and_overwrites_nothing(directory: Path) -> None:
    file = directory / "control.yaml"
    result = run("init", "--config", str(file))
    assert result.exit_code == 2
    assert "control.yaml does not exist; --listen" in result.stderr
    result = run("init", "--config", str(file), "--name", "control 1", "--listen", "127.0.0.1:7609")
    assert result.exit_code == 2
    assert 'name: found "control 1"; allowed: ' in result.stderr
    assert not file.exists()

    write(directory)
    result = run("init", "--config", str(file))
    assert result.exit_code == 0, result.output
    assert "hostlane token create --host NAME" in result.output
    assert (directory / "state" / "ca").stat().st_mode & 0o077 == 0
    (key,) = (directory / "state" / "ca").glob("*.key")
    assert key.stat().st_mode & 0o777 == 0o600
    content = key.read_bytes()
    result = run("init", "--config", str(file))
    assert result.exit_code == 2
    assert "there is a CA already" in result.stderr
    assert key.read_bytes() == content
    assert run("init", "--config", str(file), "--name", "x", "--listen", "127.0.0.1:1").exit_code == 2


def test_a_key_that_is_kept_elsewhere(directory: Path) -> None:
    place = directory / "secret.key"
    file = write(directory, f"ca_keys: [{place}]\n")
    result = run("init", "--config", str(file))
    assert result.exit_code == 0, result.output
    assert f"its key is in {place};" in result.output
    assert place.stat().st_mode & 0o777 == 0o600
    assert [path.suffix for path in (directory / "state" / "ca").iterdir()] == [".pem"]


def test_a_control_server_runs_until_it_is_told_to_stop(directory: Path) -> None:
    file = write(directory)
    assert run("init", "--config", str(file)).exit_code == 0
    process = subprocess.Popen(
        [sys.executable, "-c", "from control.cli.main import main; main()", "control", "--config", str(file)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + PATIENCE
        while not os.path.exists(directory / "run" / "control.sock") and time.monotonic() < deadline:
            time.sleep(0.02)
        for expected in (0, 1):
            copied = run("backup", str(directory / "copy.db"), "--config", str(file))
            assert (copied.exit_code, copied.output.endswith("copy.db: exists already\n")) == (expected, bool(expected))
        assert (directory / "copy.db").stat().st_size > 0
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, errors
    assert "control server stopped" in errors
    assert "Traceback" not in errors


def test_what_this_machine_cannot_do_is_one_line(directory: Path) -> None:
    file = write(directory)
    done = subprocess.run(
        [sys.executable, "-c", "from control.cli.main import main; main()", "control", "--config", str(file)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("hostlane: ")
