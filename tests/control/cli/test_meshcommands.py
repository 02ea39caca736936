"""The commands against a real control server, in a thread of its own."""

from __future__ import annotations

import json
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
    created = json.loads(run(meshcommands.token, "create", "--host", "host-d", "--ttl", "1h", "--json", *at).stdout)
    assert created["token"].startswith("hostlane1.")
    found = json.loads(run(meshcommands.token, "list", "--json", *at).stdout)
    assert {token["host"] for token in found} == {"host-c", "host-d"}
    assert len(run(meshcommands.token, "list", *at).stdout.splitlines()) == 3
    assert run(meshcommands.token, "delete", found[0]["id"], *at).exit_code == 0
    result = run(meshcommands.token, "delete", found[0]["id"], *at)
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    for wrong in (("--host", "no host"), ("--host", "host-c", "--ttl", "5")):
        assert run(meshcommands.token, "create", *wrong, *at).exit_code == 2


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
