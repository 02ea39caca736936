"""README.md's commands for containers, typed word for word on two hosts that have Docker and nothing else, and the
upgrade of what they have set up.

No image is pulled: `python:3.11-slim` and `redis:7` are images made of Debian under these names, and the first of them
knows the way out of a host that has none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.docker import images, readme
from tests.docker.bare import CLONE, BareHost, bare_hosts, import_programs
from tests.docker.outside import way_out
from tests.docker.traffic import CUT, Traffic
from tests.tools.sockets import eventually

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]

BRIDGE = "172.17.0.1"
"""The engine's address on its own bridge, where builds run."""
MOST = 4
"""Commands for each host, at most."""

OURS = ("hostlane-proxy", "hostlane-door-1", "hostlane-attach-1")
"""The containers of compose/host.yaml; the first one is upgraded by itself."""

Hosts = tuple[BareHost, BareHost]


@pytest.fixture(scope="module")
def bare() -> Iterator[Hosts]:
    """Host A and B. B builds the image, so that A has it."""
    with ExitStack() as stack:
        hosts = stack.enter_context(bare_hosts())
        for host in hosts:
            import_programs(host, "redis:7", ["redis-server", "redis-cli", "sleep"], ["tmp"])
            # A loaded machine takes long to start what callers wait for.
            patience = "limits: {open_timeout: 60s}"
            host.host_run("sh", "-c", f"echo '{patience}' | tee -a {CLONE}/compose/etc/host-[ab].yaml")
        a, b = hosts
        proxy = stack.enter_context(way_out(b.host.socket(), BRIDGE))
        images.import_base_behind(b, proxy)
        yield a, b


@pytest.fixture(scope="module")
def mesh(bare: Hosts) -> Hosts:
    """What README.md's commands have made, each of which has said what is shown there."""
    a, b = bare
    commands = readme.typed()
    for host, name in ((a, "host-a"), (b, "host-b")):
        assert 1 <= sum(command.host == name for command in commands) <= MOST
        assert host.docker("ps", "--all", "--quiet") == ""
    for command in commands:
        host = {"host-a": a, "host-b": b}[command.host]
        if host is a and not a.docker("images", "--quiet", images.IMAGE):
            # What takes B minutes, A is given.
            b.docker("save", f"--output={a.files}/image.tar", images.IMAGE)
            a.docker("load", f"--input={a.files}/image.tar")
        done = host.types(command.line, limit=900)
        assert done.returncode == 0, f"{command}: {done.stdout}{last_words(host)}"
        assert (missing := readme.differs(command.shown, done.stdout)) is None, f"{missing}: {done.stdout}"
    assert commands[-1].shown == ["PONG"]
    return a, b


def test_from_nothing_to_pong(mesh: Hosts) -> None:
    """Neither has a network of the engine's."""
    a, b = mesh
    for host, client in ((a, "example-client-client-1"), (b, "example-redis-redis-1")):
        assert host.docker("inspect", "--format={{.HostConfig.NetworkMode}}", client) == "none"


def last_words(host: BareHost) -> str:
    """Of all containers."""
    names = host.docker("ps", "--all", "--format={{.Names}}").split()
    return "".join(f"\n{name}: {host.log(name)[-5:]}" for name in names)


def test_check_finds_nothing_wrong(mesh: Hosts) -> None:
    """Asked where the links are, in the proxy's container."""
    for host, name in zip(mesh, ("host-a", "host-b"), strict=True):
        said = host.types(f"docker exec hostlane-proxy hostlane check --config /etc/hostlane/{name}.yaml --json 2>&1")
        findings = [finding for group in json.loads(said.stdout)["groups"] for finding in group["findings"]]
        assert [finding for finding in findings if finding["level"] == "wrong"] == []


def test_what_keeps_namespaces_is_said(mesh: Hosts) -> None:
    """The engine's directory as Docker mounts it by default; what compose/host.yaml has mounted is none of this."""
    event = "namespaces stay when their containers have ended"
    for host in mesh:
        assert not any(host.said(name, event) for name in OURS)
    _, b = mesh
    own = "--volume=/run/docker/netns:/run/docker/netns:ro,rslave"
    b.docker(
        "run", "--detach", "--name=second", "--user=0:7600", "--cap-drop=ALL", "--cap-add=SYS_ADMIN", "--network=none",
        "--read-only", "--volume=/run:/run/engine:ro", own, f"--volume={CLONE}/compose/etc:/etc/hostlane:ro",
        "--tmpfs=/run/hostlane-door", images.IMAGE, "door", "--config", "/etc/hostlane/host-b.yaml",
    )  # fmt: skip
    try:
        eventually(lambda: b.said("second", event, directory="/run/engine"), event)
    finally:
        b.docker("rm", "--force", "second")


def test_upgrading(mesh: Hosts) -> None:
    """docs/containers.md, word for word, with a new image, under traffic: who connects meanwhile waits. What is open
    ends with the proxy.
    """
    a, b = mesh
    traffic = Traffic(a)
    for host, name in ((a, "host-a"), (b, "host-b")):
        said = host.types(f"printf 'FROM {images.IMAGE}\\nLABEL again=1\\n' | docker build --tag {images.IMAGE} -")
        assert said.returncode == 0, said.stdout
        since = traffic.flows()
        for line in readme.upgrade():
            before = [ids(host, each) for each in OURS]
            done = host.types(line.replace("host-a", name))
            assert done.returncode == 0, f"{line}: {done.stdout}{last_words(host)}"
            traffic.flows()
            changed = {each for each, id in zip(OURS, before, strict=True) if ids(host, each) != id}
            assert changed in ({OURS[0]}, set(OURS[1:])), "never both"
        assert not traffic.failed(since, kind="new")
        assert {call.error for call in traffic.failed(since)} <= CUT
        for each in OURS:
            assert host.docker("inspect", "--format={{index .Config.Labels \"again\"}}", each) == "1"


def ids(host: BareHost, name: str) -> str:
    return host.docker("inspect", "--format={{.Id}}", name)


def test_what_is_read_and_compared() -> None:
    text = f"\n{readme.SECTION}: one\n```console\nhost-b$ a b\n…\n c  d\nhost-a$ e\nPONG\n```\n"
    text += "## Next\n```console\nhost-a$ f\n```\n"
    commands = readme.typed(text)
    assert [(each.host, each.line, each.shown) for each in commands] == [
        ("host-b", "a b", ["…", " c  d"]), ("host-a", "e", ["PONG"]),
    ]  # fmt: skip
    assert readme.differs(["…", " c  d"], "x\n c  d\ny\n") is None
    assert readme.differs(["…", " c  d", "y"], "y\n c  d\n") == "y"
    assert readme.differs(["PONG"], "PONG\n") is None
    assert readme.differs(["PONG"], "NOPE\nPONG\n") is not None
