"""Each command that shows something: on a terminal of 80 and of 200 columns, in a pipe, as JSON that fits its schema,
and in C locale.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from click.testing import CliRunner, Result

from control.api.messages import (
    HealthAnswer,
    LinkInfo,
    MeshHost,
    PeerStatus,
    ReloadResult,
    RouteCandidate,
    ServiceRoute,
    ServiceStatus,
    Status,
    StreamInfo,
    UpstreamStatus,
)
from control.cli.answers import ANSWERS, schema_of
from control.cli.main import hostlane
from tests.control.cli.conftest import Proxy
from tests.control.server.conftest import World

LONG = "no answer in 5 s: nothing has been heard of it since somebody pulled the cable at 10:42, or so it seems"
PEERS = [
    PeerStatus(
        name=f"host-{letter}.rack-{letter}.example", address="10.77.0.2:7600", state="down", links=0, streams=12345,
        waiting=3, last_error=LONG, retry_in_s=7.0,
    )
    for letter in "bc"
]  # fmt: skip
STATUS = Status(
    host="host-a", pid=1, version="0", uptime_s=1.5, security="none", sessions=0, streams=0, memory_used=0,
    memory_limit=1, streams_opened=0, streams_refused=0, handshakes_avoided=0, peers=PEERS, missing=[LONG],
    upstreams=[UpstreamStatus(service="redis", listen=f"unix:/{'r' * 90}", offered_by=["b", "c"], held_back=LONG)],
    services=[ServiceStatus(name="web", deliver=f"unix:/{'w' * 90}", streams=4)],
)  # fmt: skip
HOSTS = [
    MeshHost(name=peer.name, address=peer.address, state="down", services=["redis", "web"] * 9, links=0, streams=12345)
    for peer in PEERS
]
CANDIDATE = RouteCandidate(host=PEERS[0].name, address="10.77.0.2:7600", state="down", streams=9, last_error=LONG)
ROUTES = [
    ServiceRoute(service="redis", listen="unix:/r", takes=[PEERS[0].name], why=LONG, candidates=[CANDIDATE] * 2,
                 deliver="unix:/d", allow=["host host-b"] * 20),
]  # fmt: skip
LINK = LinkInfo(
    id="host-b/1", peer=PEERS[0].name, direction="dialled", local="10.77.0.1:51234", remote="10.77.0.2:7600", streams=2,
    age_s=61.0, idle_s=0.04, rtt_ms=1.25, bytes_sent=10**7, bytes_received=0, unacked=12, congested=True, ttl_s=42.0,
    ttl_reason=LONG,
)  # fmt: skip
STREAM = StreamInfo(
    id="host-b/1/3", link="host-b/1", service="redis", direction="outbound", peer=PEERS[0].name, state="open",
    age_s=1.0, bytes_sent=1, bytes_received=2, credit=262144, buffered=0, uid=1000, pid=4711,
)  # fmt: skip
TOLD = {
    "/status": STATUS, "/hosts": HOSTS, "/services": ROUTES, "/links": [LINK] * 2, "/streams": [STREAM] * 2,
    "/ready": HealthAnswer(ok=False, problems=[LONG]),
    "/reload": ReloadResult(outcome="applied", changes=["a: added"]),
    "/reload?dry_run=yes": ReloadResult(outcome="possible", changes=["a: added"]),
}  # fmt: skip
OF_PROXY = ["status", "health", "hosts", "services", "services --explain redis", "links", "streams",
            "streams --by peer", "reload", "reload --dry-run"]  # fmt: skip
OF_SERVER = ["hosts", "services", "token create --host host-z", "token list", "ca status"]
TALKS = ("health", "reload", "token create --host host-z")
"""What prints lines, not tables: a line is as long as its sentence."""


def run(command: str, *arguments: str, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(hostlane, [*command.split(), *arguments])


def answer_of(command: str) -> str:
    known = [name for name in ANSWERS if command == name or command.startswith(f"{name} ")]
    return max(known, key=len)


def shows_itself(command: str, *at: str) -> None:
    for columns in (80, 200):
        result = run(command, *at, COLUMNS=str(columns), TTY_COMPATIBLE="1", TERM="dumb")
        assert result.exit_code in (0, 1), result.output
        assert result.stdout
        if command not in TALKS:
            assert max(map(len, result.stdout.splitlines())) <= columns, result.stdout
    piped = run(command, *at).stdout
    assert "no room for" not in piped
    assert "\x1b" not in piped
    found = json.loads(run(command, *at, "--json").stdout)
    jsonschema.validate(found, schema_of(answer_of(command)))
    assert found


@pytest.mark.parametrize("command", OF_PROXY)
def test_what_a_proxy_tells(proxy: Proxy, command: str) -> None:
    proxy.answers.update(TOLD)
    shows_itself(command, "--socket", proxy.path)


def test_what_a_control_server_tells(server: World) -> None:
    for command in OF_SERVER:
        shows_itself(command, "--socket", server.socket)


@pytest.mark.parametrize("columns", [80, 200])
def test_versions(columns: int) -> None:
    result = run("version", COLUMNS=str(columns), TTY_COMPATIBLE="1", TERM="dumb")
    assert max(map(len, result.stdout.splitlines())) <= columns
    jsonschema.validate(json.loads(run("version", "--json").stdout), schema_of("version"))


def test_in_c_locale(proxy: Proxy, tmp_path: Path) -> None:
    told: dict[str, Any] = msgspec.to_builtins(TOLD)
    told["/status"]["missing"] = ["größer … als µ"]
    proxy.answers.update(told)
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "COLUMNS": "80",
                   "TTY_COMPATIBLE": "1", "TERM": "dumb"}  # fmt: skip
    code = "import sys; from control.cli.main import main; sys.argv = ['hostlane', *sys.argv[1:]]; main()"
    for command in ("status", "links", "streams"):
        argv = [sys.executable, "-c", code, command, "--socket", proxy.path]
        done = subprocess.run(argv, env=environment, capture_output=True, timeout=60, check=False)
        assert done.returncode in (0, 1)
        assert done.stdout
        assert max(map(len, done.stdout.decode("ascii").splitlines())) <= 80
        assert b"Traceback" not in done.stderr
