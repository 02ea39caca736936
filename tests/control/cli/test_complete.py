from __future__ import annotations

import click
import pytest
from click.shell_completion import ShellComplete

from control.api.messages import MeshHost, RouteCandidate, ServiceRoute
from control.cli.main import hostlane
from tests.control.cli.conftest import Proxy
from tests.control.server.conftest import World

HOSTS = [MeshHost(name=name, address="a:1", state=state, services=[]) for name, state in (("a", "here"), ("b", "up"))]  # type: ignore[arg-type]
ROUTES = [
    ServiceRoute(service=name, listen=None, takes=[], why="", candidates=list[RouteCandidate]())
    for name in ("redis", "reports", "web")
]


def completed(*words: str) -> list[tuple[str, str]]:
    *before, typed = words
    found = ShellComplete(hostlane, {}, "hostlane", "_HOSTLANE_COMPLETE").get_completions(before, typed)
    return [(item.type, item.value) for item in found]


@pytest.mark.parametrize(
    "words",
    [("validate", "/et"), ("proxy", "--config", "x"), ("status", "--socket", "/ru"), ("pool", "replay", "r"),
     ("control", "--config", ""), ("token", "create", "--out", "t"), ("check", "--config", "")],
)  # fmt: skip
def test_files(words: tuple[str, ...]) -> None:
    assert [kind for kind, _ in completed(*words)] == ["file"]


def test_names_that_the_proxy_knows(proxy: Proxy) -> None:
    proxy.answers.update({"/hosts": HOSTS, "/services": ROUTES})
    at = ("--socket", proxy.path)
    assert completed("services", *at, "--explain", "re") == [("plain", "redis"), ("plain", "reports")]
    assert completed("streams", *at, "--service", "w") == [("plain", "web")]
    assert completed("streams", *at, "--peer", "") == [("plain", "b")]
    proxy.stop()
    assert completed("streams", *at, "--peer", "") == []


def test_names_that_the_control_server_knows(server: World) -> None:
    at = ("--socket", server.socket)
    assert completed("hosts", "remove", *at, "host-") == [("plain", "host-a"), ("plain", "host-b")]
    assert completed("revoke", *at, "host-b") == [("plain", "host-b")]
    assert completed("revoke", "--socket", "/nowhere", "h") == []


def test_commands() -> None:
    assert ("plain", "validate") in completed("val")
    assert isinstance(hostlane, click.Group)
