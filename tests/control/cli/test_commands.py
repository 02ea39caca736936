from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from control.api.messages import Discovery, PeerStatus, Status, UpstreamStatus
from control.cli import commands, streamcommand


def peer(name: str, state: Any, last_error: str | None = None) -> PeerStatus:
    return PeerStatus(name=name, address="b:1", state=state, links=0, streams=0, waiting=0, last_error=last_error)


def status(peers: list[PeerStatus], offered_by: list[str]) -> Status:
    return Status(
        host="a", pid=1, version="0", uptime_s=1.5, security="none", sessions=0, streams=0, memory_used=0,
        memory_limit=1, streams_opened=0, streams_refused=0, handshakes_avoided=0, peers=peers, services=[],
        upstreams=[UpstreamStatus(service="redis", listen="unix:/r", offered_by=offered_by)],
    )  # fmt: skip


UP = status([peer("b", "up")], ["b"])
DOWN = status([peer("b", "down", "no route\x1b")], ["b"])


def run(command: Any, *arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def test_status(answering: Callable[..., str]) -> None:
    result = run(commands.status, "--socket", answering(msgspec.json.encode(UP)))
    assert (result.exit_code, result.stderr) == (0, "")
    blocks = result.stdout.split("\n" + " " * 0 + "\n")
    assert [block.split()[0] for block in blocks] == ["host", "peer", "upstream"]


def test_status_of_a_host_that_lacks_a_peer(answering: Callable[..., str]) -> None:
    socket = answering(msgspec.json.encode(DOWN))
    for arguments in ([], ["--json"]):
        result = run(commands.status, "--socket", socket, *arguments)
        assert result.exit_code == 1
        assert result.stderr == "hostlane: upstream redis cannot be served: b is down (no route\\x1b)\n"
        assert "redis" in result.stdout


@pytest.mark.parametrize(
    ("peers", "offered_by", "lines"),
    [
        ([peer("b", "up")], ["b"], []),
        ([peer("b", "up", "an old error")], ["b"], []),
        ([peer("b", "dialling")], ["b"], []),
        ([peer("b", "dialling", "refused")], ["b"], ["b is dialling (refused)"]),
        ([peer("b", "down")], ["b"], ["b is down"]),
        ([msgspec.structs.replace(peer("b", "down"), idle=True)], ["b"], []),
        ([peer("b", "down"), peer("c", "up")], ["b", "c"], []),
        ([peer("b", "down"), peer("c", "down", "x")], ["b", "c"], ["b is down; c is down (x)"]),
        ([peer("b", "down")], ["a", "b"], []),
        ([peer("b", "up")], [], ["nobody offers it"]),
        ([], ["z"], ["nobody offers it"]),
    ],
)
def test_unserved(peers: list[PeerStatus], offered_by: list[str], lines: list[str]) -> None:
    assert commands.unserved(status(peers, offered_by)) == [
        f"upstream redis cannot be served: {line}" for line in lines
    ]


@pytest.mark.failure("22", "31")
def test_status_of_a_host_whose_name_another_proxy_has(answering: Callable[..., str]) -> None:
    found = Discovery(
        servers=[], server="s:1", last_error=None, epoch="e", revision=1, age_s=0.0, from_disk=False, hosts=1,
        unconfirmed=[], registered=False, registration_error="a is the proxy at x\x1b", left_out={},
    )  # fmt: skip
    displaced = msgspec.structs.replace(found, displaced=True)
    revoked = msgspec.structs.replace(found, barred=True, registration_error="its certificate has been revoked")
    for control, namesakes, lines in (
        (found, [], []),
        (revoked, [], ["not registered: its certificate has been revoked"]),
        (displaced, [], ["not registered: a is the proxy at x\\x1b"]),
        (None, ["another one, says b"], ["another one, says b"]),
    ):
        body = msgspec.json.encode(msgspec.structs.replace(UP, control=control, namesakes=namesakes))
        result = run(commands.status, "--socket", answering(body))
        assert result.exit_code == bool(lines)
        assert result.stderr.splitlines() == [f"hostlane: {line}" for line in lines]


@pytest.mark.failure("30")
def test_status_of_a_host_that_cannot_accept(answering: Callable[..., str]) -> None:
    lines = ["links.listen: cannot accept a connection: Permission denied", "unix:/x\x1b: cannot accept"]
    result = run(
        commands.status, "--socket", answering(msgspec.json.encode(msgspec.structs.replace(UP, cannot_accept=lines)))
    )
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [f"hostlane: {lines[0]}", "hostlane: unix:/x\\x1b: cannot accept"]
    assert lines[0] in " ".join(result.stdout.split())


def test_json_is_what_the_proxy_said(answering: Callable[..., str]) -> None:
    body = msgspec.json.encode({**msgspec.to_builtins(UP), "new": "field"})
    result = run(commands.status, "--json", "--socket", answering(body))
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout) == json.loads(body)


@pytest.mark.parametrize("command", [commands.links, streamcommand.streams])
def test_empty_lists(answering: Callable[..., str], command: Any) -> None:
    socket = answering(b"[]")
    assert run(command, "--json", "--socket", socket).stdout == "[]\n"
    result = run(command, "--socket", socket)
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 1)


@pytest.mark.parametrize("command", [commands.status, commands.links, streamcommand.streams])
def test_no_proxy_is_one_line(tmp_path: Path, command: Any) -> None:
    result = run(command, "--socket", str(tmp_path / "x.sock"))
    line = f"hostlane: {tmp_path}/x.sock: no such socket; is the proxy running?\n"
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", line)


def test_the_socket_of_a_configuration(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    result = run(commands.links, "--config", str(file))
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"hostlane: {file}: no such file\n")
    file.write_text(f"run_dir: {tmp_path}/run\n")
    assert f"{tmp_path}/run/admin.sock: no such socket" in run(commands.links, "--config", str(file)).stderr


def test_two_ways_to_name_the_proxy() -> None:
    result = run(commands.links, "--config", "a", "--socket", "b")
    assert result.exit_code == 2
    assert "use one of them" in result.stderr


def test_the_default_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands.admin, "DEFAULT_RUN_DIR", "/nowhere")
    assert "hostlane: /nowhere/admin.sock: no such socket" in run(commands.links).stderr
