from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from control.cli import validate as command
from proxy.demo.certificates import CertificateAuthority

GOOD = "host: a\nlinks: {listen: 127.0.0.1:7600, security: none}\nlog: {format: json}\n"
BAD = "host: A\nlinks: {listen: 127.0.0.1, security: none}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "f.yaml"
    path.write_text(GOOD)
    return path


def run(command: Any, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_validate(file: Path) -> None:
    bad = file.with_name("bad.yaml")
    bad.write_text(BAD)
    done = run(command.validate, file)
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"{file}: ok\n", "")
    done = run(command.validate, bad, file, file.with_name("missing"))
    assert done.exit_code == 2
    assert done.stdout == f"{file}: ok\n"
    assert [line.split(": ")[:2] for line in done.stderr.splitlines()] == [
        [f"{bad}:1", "host"], [f"{bad}:2", "links.listen"], [str(file.with_name("missing")), "no such file"],
    ]  # fmt: skip


@pytest.mark.failure("29", "34")
@pytest.mark.parametrize("source", ["192.0.2.5", "fd00:dead::5", "fe80::1%nosuch0"])
def test_validate_warns_of_a_source_that_this_machine_lacks(file: Path, source: str) -> None:
    """The file may be for another machine."""
    deliver = "tcp:db.internal:80"
    file.write_text(f"{GOOD}services: {{db: {{deliver: '{deliver}', source: [127.0.0.1, '{source}']}}}}\n")
    done = run(command.validate, file)
    assert (done.exit_code, done.stdout) == (0, f"{file}: ok\n")
    text = f"services.db.source: no interface of this machine has {source}, from which connections are to come"
    assert done.stderr == f"{file}: warning: {text}\n"


def test_validate_reads_the_certificates(tmp_path: Path) -> None:
    ours, other = CertificateAuthority(), CertificateAuthority("other")
    section = ours.write(tmp_path, "a")
    file = tmp_path / "f.yaml"
    tls = ", ".join(f"{key}: {path}" for key, path in section.items())
    file.write_text(f"host: a\nlinks: {{listen: '127.0.0.1:7600', tls: {{{tls}}}}}\n")
    assert run(command.validate, file).output == f"{file}: ok\n"
    for bundle in (other.certificate, ours.issue("spiffe://hostlane/host/a")[0], ours.certificate + other.issue()[0]):
        Path(section["ca"]).write_bytes(bundle)
        done = run(command.validate, file)
        assert (done.exit_code, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"{file}: links.tls.ca: {section['ca']}: found ")
        assert "; allowed: " in line


def test_both_kinds_are_recognised(file: Path) -> None:
    server = file.with_name("control.yaml")
    server.write_text(f"name: c\nlisten: 127.0.0.1:7601\nstate_dir: {file.parent}\n")
    other = file.with_name("compose.yaml")
    other.write_text("version: 3\n")
    done = run(command.validate, file, server, other)
    assert (done.exit_code, done.stdout.splitlines()) == (2, [f"{file}: ok", f"{server}: ok"])
    assert done.stderr.startswith(f"{other}:1: found a file of another kind; allowed: a host's configuration")
    server.write_text("name: c\nlisten: 127.0.0.1:7601\nlinks: {}\n")
    assert 'links: unknown key; allowed: name, listen' in run(command.validate, server).stderr


def test_the_file_of_the_unit_is_the_default(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "DEFAULT_CONFIG", str(file))
    assert run(command.validate).stdout == f"{file}: ok\n"


def test_every_value_and_where_it_is_from(file: Path) -> None:
    done = run(command.validate, "--effective", file)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0] == f"# {file}: a host's configuration"
    assert ["listen:", "127.0.0.1:7600", "#", "f.yaml:2"] in [line.split() for line in lines]
    assert [line.split() for line in lines if "ping_timeout:" in line] == [["ping_timeout:", "5s", "#", "default"]]
    found = json.loads(run(command.validate, "--effective", "--json", file).stdout)
    assert {"path": ["host"], "value": "a", "source": "f.yaml:1"} in found
    assert run(command.validate, "--json", file).exit_code == 2


@pytest.mark.failure("28")
@pytest.mark.parametrize(("name", "code"), [("0x7f000001", 2), ("0x7f.1.test", 0)])
def test_validate_looks_names_up_that_no_file_has(file: Path, name: str, code: int) -> None:
    """The C library reads this one as 127.0.0.1, as programs do that have it from their users."""
    ring = f"upstreams: {{s: {{listen: 'tcp:0.0.0.0:18081'}}}}\nservices: {{s: {{deliver: 'tcp:{name}:18081'}}}}\n"
    file.write_text(GOOD + ring)
    done = run(command.validate, file)
    assert done.exit_code == code, done.output


def test_services_with_one_address_are_a_note(file: Path) -> None:
    text = GOOD + "peers: {b: {address: 127.0.0.1:1, services: [service-1262, service-2207]}}\n"
    file.write_text(text)
    assert run(command.validate, file).stderr == ""
    file.write_text(text + "door: {}\n")
    done = run(command.validate, file)
    assert (done.exit_code, done.stdout) == (0, f"{file}: ok\n")
    assert done.stderr.startswith(f"{file}: note: services service-1262 and service-2207 have one address, ")
