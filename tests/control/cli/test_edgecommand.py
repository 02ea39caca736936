from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from click.testing import CliRunner, Result

from control.api.messages import EdgeInfo, Edges
from control.cli import edgecommand
from tests.control.server.conftest import World


def run(command: Any, *arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


EDGE = EdgeInfo(
    caller="shop", caller_host="host-a", service="redis", host=None, direction="outbound", streams=2, opened=1000,
    failed=3, sent=1, received=2, opened_per_s=1234.4, failed_per_s=0.2, sent_per_s=0.0, received_per_s=2048.0,
    reason="peer_unreachable", failing_s=75.2,
)  # fmt: skip


def test_edges_of_a_proxy(tmp_path: Path, answering: Callable[..., str]) -> None:
    fine = msgspec.structs.replace(EDGE, host="b", failing_s=None, reason=None, failed=0, opened_per_s=0.25)
    place = str(tmp_path / "admin.sock")
    os.rename(answering(msgspec.json.encode(Edges(edges=[EDGE, fine]))), place)
    result = run(edgecommand.edges, "--socket", place)
    assert (result.exit_code, result.stderr) == (0, "")
    head, first, second = result.stdout.splitlines()
    assert head.split()[:5] == ["caller", "on", "service", "host", "streams"]
    assert first.split() == ["shop", "host-a", "redis", "-", "2", "1,234/s", "0", "B/s", "2.0", "KiB/s", "3",
                             "peer_unreachable,", "for", "1m15s"]  # fmt: skip
    assert second.split()[3:6] == ["b", "2", "0.2/s"]
    assert second.split()[-2:] == ["0", "-"]


def test_edges_of_the_mesh(server: World) -> None:
    result = run(edgecommand.edges, "--socket", server.socket, "--json")
    assert (result.exit_code, json.loads(result.stdout)["edges"]) == (0, [])
    assert sorted(json.loads(result.stdout)["missing"]) == ["host-a", "host-b"]
    result = run(edgecommand.edges, "--socket", server.socket)
    assert [line.split(":")[1].strip() for line in result.stderr.splitlines()] == ["host-a", "host-b"]
    assert len(result.stdout.splitlines()) == 1, "the head of the table"


def test_nobody_to_ask_about_edges(tmp_path: Path) -> None:
    result = run(edgecommand.edges, "--socket", str(tmp_path / "admin.sock"))
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
