"""The commands against a real control server, in a thread of its own."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from control.cli import meshcommands
from tests.control.server.conftest import World


def run(command: Any, *arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def test_tokens(server: World) -> None:
    at = ("--socket", server.socket)
    result = run(meshcommands.token, "create", "--host", "host-c", *at)
    assert result.exit_code == 0
    assert result.stdout.startswith("hostlane1.")
    assert re.fullmatch(r"token [0-9a-f]{16} for host host-c, good once until \S+ \S+ UTC\n", result.stderr)
    created = json.loads(run(meshcommands.token, "create", "--host", "host-d", "--ttl", "1h", "--json", *at).stdout)
    assert created["token"].startswith("hostlane1.")
    assert created["id"] in run(meshcommands.token, "list", *at).stdout
    found = json.loads(run(meshcommands.token, "list", "--json", *at).stdout)
    assert {token["host"] for token in found} == {"host-c", "host-d"}
    assert len(run(meshcommands.token, "list", *at).stdout.splitlines()) == 3
    assert run(meshcommands.token, "delete", found[0]["id"], *at).exit_code == 0
    result = run(meshcommands.token, "delete", found[0]["id"], *at)
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    for wrong in (("--host", "no host"), ("--host", "host-c", "--ttl", "5")):
        assert run(meshcommands.token, "create", *wrong, *at).exit_code == 2


def test_a_token_in_a_file(server: World, tmp_path: Path) -> None:
    at, out = ("--socket", server.socket), tmp_path / "token"
    result = run(meshcommands.token, "create", "--host", "host-c", "--out", str(out), *at)
    assert (result.exit_code, result.stdout) == (0, f"written to {out}\n")
    assert out.stat().st_mode & 0o777 == 0o600
    assert out.read_text().startswith("hostlane1.")
    assert run(meshcommands.token, "create", "--host", "host-c", "--out", str(out), *at).exit_code == 2
    result = run(meshcommands.token, "create", "--host", "host-d", "--out", "/proc/token", *at)
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert "host-d" not in run(meshcommands.token, "list", *at).stdout, "nobody has it"


def test_revoke(server: World) -> None:
    at = ("--socket", server.socket)
    assert run(meshcommands.revoke, *at).exit_code == 2
    result = run(meshcommands.revoke, "host-z", *at)
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)


def test_rotation(server: World) -> None:
    at = ("--socket", server.socket)
    assert len(run(meshcommands.ca, "status", *at).stdout.splitlines()) == 2
    assert len(run(meshcommands.ca, "add", *at).stdout.splitlines()) == 3
    assert run(meshcommands.ca, "add", *at).exit_code == 1
    assert run(meshcommands.ca, "activate", *at).exit_code == 0
    found = json.loads(run(meshcommands.ca, "drop", "--force", "--json", *at).stdout)
    assert len(found["roots"]) == 1
