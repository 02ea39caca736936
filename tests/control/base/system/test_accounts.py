from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from control.base.system.accounts import unknown_accounts
from control.cli.main import hostlane
from control.server.config import parse as parse_control
from proxy.config.schema import parse

HOST = "host: a\nlinks: {listen: 127.0.0.1:7600, security: none}\nservices: {s: {deliver: 'unix:/run/y/s.sock'}}\n"
CONTROL = "name: c\nlisten: 127.0.0.1:7601\n"


@pytest.mark.parametrize(
    ("section", "key", "kind"),
    [
        ("admin: {group: no-such}", "admin.group", "group"),
        ("telemetry: {socket: /run/x/y.sock, group: no-such}", "telemetry.group", "group"),
        ("upstreams: {s: {listen: 'unix:/run/x/s.sock', owner: no-such}}", "upstreams.s.owner", "user"),
        ("upstreams: {s: {listen: 'unix:/run/x/s.sock', group: no-such}}", "upstreams.s.group", "group"),
        ("connect: {listen: 'unix:/run/x/c.sock', services: all, group: no-such}", "connect.group", "group"),
        ("door: {user: no-such}", "door.user", "user"),
    ],
)
def test_each_key_that_names_one(section: str, key: str, kind: str, tmp_path: Path) -> None:
    [line] = unknown_accounts(parse(HOST + section, "host.yaml"))
    assert line.startswith(f"{key}: there is no {kind} 'no-such' here; ")
    assert not [*unknown_accounts(parse(HOST + section.replace("no-such", "root"), "host.yaml"))]
    assert not [*unknown_accounts(parse(HOST + section.replace("no-such", "4711"), "host.yaml"))]
    file = tmp_path / "host.yaml"
    file.write_text(HOST + section)
    done = CliRunner().invoke(hostlane, ["validate", str(file)])
    assert (done.exit_code, done.stdout) == (0, f"{file}: ok\n")
    assert done.stderr == f"{file}: warning: {line}\n"


def test_of_a_control_server() -> None:
    [line] = unknown_accounts(parse_control(f"{CONTROL}admin: {{group: no-such}}\n", "control.yaml"))
    assert line.startswith("admin.group: there is no group 'no-such' here; ")
