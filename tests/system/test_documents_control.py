"""As test_documents, of what is typed where a control server runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from proxy.demo.lab import Lab
from tests.system.world import add_address
from tests.tools.documents import ROOT, block, shape, typed
from tests.tools.machine import Machine, redis_server
from tests.tools.sockets import eventually

pytestmark = [pytest.mark.netns, pytest.mark.redis]

READY = "control server ready"
PROXY = "hostlane proxy --config /etc/hostlane/hostlane.yaml"


@pytest.fixture
def control(lab: Lab) -> Iterator[Machine]:
    """Host A has all addresses that documents give a control server."""
    with ExitStack() as stack:
        for address in ("10.0.0.5", "10.77.0.9", "10.77.0.100"):
            add_address(stack, lab.a, address)
        yield stack.enter_context(Machine(lab.a))


@pytest.fixture
def host(lab: Lab) -> Iterator[Machine]:
    """Host C of README, which has host B's place in the lab."""
    with ExitStack() as stack:
        for address in ("10.77.0.3", "10.0.0.6"):
            add_address(stack, lab.b, address)
        yield stack.enter_context(Machine(lab.b))


@pytest.fixture
def offers(lab: Lab) -> Iterator[Machine]:
    """Host B."""
    with Machine(lab.b) as machine:
        yield machine


def knows(machine: Machine, name: str) -> None:
    """Wait until a host is on the map."""
    eventually(lambda: name in machine.type("hostlane hosts").out, name)


def test_a_mesh_with_a_control_plane(control: Machine, host: Machine) -> None:
    """README, configs/joining.yaml."""
    with control.doing(block("README.md", "hostlane control init"), READY):
        control.does(block("README.md", "hostlane token create"))
        host.write("/etc/hostlane/token", control.read("token"))
        with host.doing(block("README.md", "hostlane proxy --config configs/joining.yaml")):
            for machine in (control, host):
                knows(machine, "host-c")
                assert "web" in machine.does("hostlane services")


@pytest.mark.parametrize("file", ["control.yaml", "control-sqlite.yaml"])
def test_examples_of_control_servers(control: Machine, file: str) -> None:
    """As the head of configs/control.yaml says."""
    head = (ROOT / "configs" / "control.yaml").read_text().splitlines()[1]
    init, start = re.findall("`(hostlane [^`]*)`", head)
    control.does(f"cd configs; {init.replace('control.yaml', file)}")
    with control.doing(f"cd configs; exec {start.replace('control.yaml', file)}", READY):
        assert control.does("hostlane token list")


def test_running_a_control_server(control: Machine, host: Machine) -> None:
    """docs/operations.md, docs/security.md."""
    init, start = block("docs/operations.md", "hostlane control init --config /etc", "sh").splitlines()
    control.does(init)
    control.does(f"{start} --check")
    with control.doing(start, READY) as server:
        control.does(block("docs/operations.md", "hostlane token create"))
        joining = (ROOT / "configs" / "joining.yaml").read_text().replace("10.77.0.1:7601", "10.0.0.5:7601")
        host.write("/etc/hostlane/token", control.read("token"))
        host.write("/etc/hostlane/hostlane.yaml", joining.replace("host-c", "host-a"))
        with host.doing(PROXY):
            knows(control, "host-a")
            text = (ROOT / "docs" / "operations.md").read_text()
            rows = re.findall(r"^\| (`hostlane [^|]*) \|", text, re.MULTILINE)
            assert "".join(rows).count("`hostlane ") == 8
            for command in ("hosts", "services", "edges", "token list", "ca status"):
                assert control.does(f"hostlane {command}")
            [sample] = typed(block("docs/security.md", "$ hostlane token create"))
            assert shape(sample.printed) == shape(control.does(sample.line))
            control.does("mkdir -p /var/backups/hostlane")
            control.does(block("docs/operations.md", "hostlane control backup"))
            control.does("hostlane completion bash > /etc/bash_completion.d/hostlane")
            for path in ("v1/health", "openapi.json"):
                json.loads(control.does(f"curl --silent --fail --insecure https://10.0.0.5:7601/{path}"))
            control.does("hostlane hosts remove host-a")
            knows(control, "host-a")
            server.stop()
            control.does("cp /var/backups/hostlane/store-*.db /var/lib/hostlane-control/store.db")
            control.does(block("docs/operations.md", "sqlite3"))
            with control.doing(start, READY):
                knows(control, "host-a")
                [sample] = typed(block("docs/security.md", "$ hostlane revoke"))
                assert control.does(sample.line) == "1 certificate revoked\n"
                eventually(lambda: "host-a" not in control.does("hostlane hosts"), "that it has gone")


def test_join(lab: Lab, control: Machine, offers: Machine) -> None:
    """docs/join.md, all but --service, which wants systemd."""
    [init] = typed(block("docs/join.md", "control# hostlane control init"))
    said = shape(control.does(init.line.replace(" --service", "")))
    own = ("service:", "next:")  # with --service, and without
    assert said[1] == "next: hostlane control"
    assert [line for line in said if not line.startswith(own)] == [
        line for line in shape(init.printed) if not line.startswith(own)
    ]
    with control.doing("hostlane control", READY), redis_server(offers), Machine(lab.a) as calls:
        token, join = typed(block("docs/join.md", "control# hostlane token"))
        [use, ping] = typed(block("docs/join.md", "host-a# hostlane join"))
        made = control.does(token.line)
        assert shape(token.printed) == shape(made)
        said = shape(offers.does(joined(join.line, made)))
        assert said[:2] == shape(join.printed)[:2]
        made = control.does(token.line.replace("host-b", "host-a"))
        calls.does(joined(use.line, made))
        with offers.doing(PROXY), calls.doing(PROXY):
            eventually(lambda: calls.type(ping.line).out == f"{ping.printed}\n", ping.printed)


def joined(line: str, token: str) -> str:
    """What is typed, with a token that there is, without systemd."""
    return re.sub(r"hostlane1\.\S+", token.strip(), line).replace(" --service", "")
