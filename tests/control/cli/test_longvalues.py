"""Long names, lists and sentences, as no mesh of a test has them: tables fit a terminal all the same. How each command
is typed at a real mesh is in tests/system/test_commandline.py.
"""

from __future__ import annotations

from typing import Any

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
from control.cli.main import hostlane
from tests.control.cli.conftest import Proxy
from tests.tools.typed import LOCALE_C, piped

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
COMMANDS = ("status", "health", "hosts", "services", "services --explain redis", "links", "streams", "reload")
TALKS = ("health", "reload")
"""What prints lines, not tables: a line is as long as its sentence."""
SHOW_IT_ALL = ("status", "services --explain redis", "links")
"""What has a place for LONG."""


def run(command: str, *arguments: str, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(hostlane, [*command.split(), *arguments])


@pytest.mark.parametrize("command", COMMANDS)
def test_long_values_fit_a_terminal_and_are_whole_in_a_pipe(proxy: Proxy, command: str) -> None:
    proxy.answers.update(TOLD)
    for columns in (80, 200):
        shown = run(command, "--socket", proxy.path, COLUMNS=str(columns), TTY_COMPATIBLE="1", TERM="dumb")
        assert shown.exit_code in (0, 1), shown.output
        assert shown.stdout
        if command not in TALKS:
            assert max(map(len, shown.stdout.splitlines())) <= columns, shown.stdout
    if command in SHOW_IT_ALL:
        assert LONG in run(command, "--socket", proxy.path).stdout


def test_what_ascii_does_not_have_is_shown_in_c_locale(proxy: Proxy) -> None:
    told: dict[str, Any] = msgspec.to_builtins(TOLD)
    told["/status"]["missing"] = ["größer … als µ"]
    proxy.answers.update(told)
    done = piped(["status", "--socket", proxy.path], COLUMNS="80", TTY_COMPATIBLE="1", TERM="dumb", **LOCALE_C)
    assert done.code in (0, 1)
    assert "als" in done.out
    assert max(map(len, done.lines)) <= 80
    assert "Traceback" not in done.err
