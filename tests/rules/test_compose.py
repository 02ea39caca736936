"""compose/ without an engine: what every file of it keeps to. (They are brought up in tests/docker/test_compose.py.)"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from control.server import config as control_config
from proxy.config import schema as config
from tests.docker import readme

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "compose").glob("*.yaml"))
EXAMPLES = sorted((ROOT / "compose").rglob("*.yaml"))
CONFIGURATIONS = sorted((ROOT / "compose").glob("*/*.yaml"))
SERVICES = [
    pytest.param(service, id=f"{file.name}-{name}")
    for file in FILES
    for name, service in yaml.safe_load(file.read_text())["services"].items()
]
PROXYS = re.search(r"useradd --uid (\d+) --gid \d+ .* (\w+) \\", (ROOT / "Dockerfile").read_text())
GIVEN = {"HOST": "host-a", "ADDRESS": "10.77.0.10", "NUMBER": "1"}


def test_there_are_some() -> None:
    assert {"host-simple", "control", "three-control-etcd", "sidecar"} <= {file.stem for file in FILES}


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_configuration_validates(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GIVEN.items():
        monkeypatch.setenv(name, value)
    if "schema/control.json" in path.read_text():
        assert control_config.load(path).name
    elif "schema/host.json" in path.read_text():
        assert config.load(path).host


@pytest.mark.parametrize("service", SERVICES)
def test_what_goes_on_running(service: dict[str, Any]) -> None:
    """Its log is rotated (a failure that repeats itself writes 6 GB a day), and it has time to stop."""
    if "restart" not in service:
        return
    assert "max-size" in service["logging"]["options"]
    assert "stop_grace_period" in service


@pytest.mark.parametrize("service", SERVICES)
def test_directories_are_mounted_and_not_files(service: dict[str, Any]) -> None:
    """A file that is mounted by itself stays the old one once an editor, or a socket's next owner, replaces it."""
    for volume in service.get("volumes", []):
        source = (volume if isinstance(volume, str) else volume["source"]).partition(":")[0]
        if source.startswith("./"):
            assert (ROOT / "compose" / source).is_dir(), volume
        assert not source.endswith((".sock", ".yaml")), volume


def of_our_image(service: dict[str, Any]) -> bool:
    return str(service.get("image", "hostlane")).startswith(("hostlane", "${IMAGE:-hostlane", "${NEXT_IMAGE:-hostlane"))


def user(service: dict[str, Any]) -> str:
    """The number or name of its user, as far as the file says. (A group alone commands nothing.)"""
    return str(service.get("user", "7600" if of_our_image(service) else "")).partition(":")[0]


def runs(service: dict[str, Any]) -> str:
    """Which program of Hostlane's, by its first word, the image's own if none is said; empty: another program."""
    if "hostlane" not in service.get("entrypoint", ["hostlane"]) or not of_our_image(service):
        return ""
    return str(service.get("command", ["proxy"])[0])


def has_the_proxys_user(service: dict[str, Any]) -> bool:
    """Whether it is somebody whom a proxy would take for itself, and is none. A control server runs as the same user of
    the same image: it is no service, and `test_a_control_server_shares_nothing_with_a_proxy` keeps it apart.
    """
    return runs(service) not in ("proxy", "control") and user(service) in ("7600", "hostlane")


def services(path: Path) -> dict[str, dict[str, Any]]:
    """Those of a compose file; of a proxy's configuration, which has a section of that name, none."""
    found = yaml.safe_load(path.read_text()).get("services") or {}
    return {name: each for name, each in found.items() if isinstance(each, dict) and {"image", "build"} & set(each)}


ALL = [
    pytest.param(service, id=f"{path.relative_to(ROOT / 'compose').with_suffix('')}-{name}")
    for path in EXAMPLES
    for name, service in services(path).items()
]


def test_the_proxys_user_is_that_of_the_image() -> None:
    assert PROXYS is not None
    assert PROXYS.groups() == ("7600", "hostlane")


@pytest.mark.failure("21")
@pytest.mark.parametrize("service", ALL)
def test_no_service_has_the_proxys_user(service: dict[str, Any]) -> None:
    """Who has it may command the proxy, wherever its sockets come to lie in reach."""
    assert not has_the_proxys_user(service)


@pytest.mark.failure("21")
@pytest.mark.parametrize(
    ("service", "has"),
    [
        ({"image": "redis:7", "user": 7600}, True),
        ({"image": "redis:7", "user": "7600:1000"}, True),
        ({"image": "redis:7", "user": "hostlane"}, True),
        ({"image": "${IMAGE:-hostlane}", "entrypoint": ["sleep", "infinity"]}, True),
        ({"image": "hostlane", "command": ["status"]}, True),
        ({"image": "hostlane", "entrypoint": ["sh", "-c", "exec hostlane", "hostlane"], "command": ["control"]}, False),
        ({"image": "hostlane", "entrypoint": ["sh", "-c", "exec hostlane", "hostlane"], "command": ["status"]}, True),
        ({"build": "..", "command": ["door"], "user": "0:7600"}, False),
        ({"image": "redis:7", "user": "76001"}, False),
        ({"image": "redis:7"}, False),
        ({"image": "hostlane", "command": ["proxy"]}, False),
        ({"image": "${IMAGE:-hostlane}"}, False),
        ({"image": "redis:7", "command": ["proxy"], "user": "7600"}, True),
    ],
)
def test_who_has_the_proxys_user(service: dict[str, Any], has: bool) -> None:
    assert has_the_proxys_user(service) is has


@pytest.mark.failure("21")
@pytest.mark.parametrize("path", [path for path in EXAMPLES if services(path)], ids=lambda path: path.stem)
def test_a_control_server_shares_nothing_with_a_proxy(path: Path) -> None:
    """They have one user: neither may reach the other's sockets or processes, so none of a project has both."""
    kinds = {runs(service) for service in services(path).values()}
    assert not {"proxy", "control"} <= kinds
    for service in services(path).values():
        assert not {"pid", "userns_mode", "ipc"} & set(service), "namespaces of somebody else's"


RANGE = re.compile(r"--ip-range[ =]([\d.]+/\d+)")
STATIC = re.compile(r"(?<![\d.])10\.77\.\d+\.\d+(?![\d.]|/\d+ )")


def written() -> str:
    """The files of compose/, and whatever tells to type a command of Docker's; with each of three control servers."""
    paths = [*EXAMPLES, ROOT / "README.md", ROOT / "docs/image.md", ROOT / "docs/upgrade.md"]
    text = "".join(path.read_text() for path in paths)
    return "".join(text.replace("${NUMBER}", number) for number in "123")


def test_no_static_address_is_the_engines_to_give() -> None:
    """The engine gives those in a network's `ip-range` to whoever starts next, be they somebody's static ones."""
    text = written()
    ranges = [ipaddress.ip_network(each) for each in sorted(set(RANGE.findall(text)))]
    static = {ipaddress.ip_address(each) for each in STATIC.findall(RANGE.sub("", text))}
    assert len(ranges) == 2, "one for each host"
    assert not ranges[0].overlaps(ranges[1])
    assert {"10.77.0.10", "10.77.0.65", "10.77.0.100", "10.77.0.103"} <= {str(each) for each in static}
    assert [str(each) for each in static if any(each in network for network in ranges)] == []


def test_hosts_of_the_static_mesh_name_what_the_others_offer() -> None:
    """Which labels do, on the host on which README.md brings the example up. A host that is named for what it does not
    offer is called first by some, and refuses.
    """
    offering = {each.host for each in readme.typed() if "example/redis.yaml" in each.line}
    assert offering == {"host-b"}
    hosts = {found.host: found for found in map(config.load, sorted((ROOT / "compose/etc").glob("*.yaml")))}
    assert set(hosts["host-a"].peers) == {"host-b"}
    assert set(hosts["host-b"].peers) == {"host-a"}
    for found in hosts.values():
        for name, peer in found.peers.items():
            assert peer.services == (("redis",) if name in offering else ()), found.host
            assert peer.address == hosts[name].links.listen
