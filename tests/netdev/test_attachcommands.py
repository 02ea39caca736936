from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from control.api.mesh import AddressLease
from proxy.config import schema as config
from proxy.config.interfaces import ContainerInterfaceConfig
from proxy.errors import NetError
from proxy.netdev import attachcommands
from proxy.netdev.apply import containers
from proxy.netdev.apply.containers import AttachTarget
from proxy.netdev.leases import addressbook
from proxy.netdev.plan.steps import NetPlan
from tests.netdev.machine import HEAD

CONFIG = config.parse(HEAD + "containers: {web: {parent: eth0, name: net0}}\n", "f")
NOTHING = {"kind": None, "parent": None, "addresses": ()}


def test_the_configuration_says_what_a_container_gets() -> None:
    assert attachcommands.wanted(CONFIG, "web", NOTHING) == ContainerInterfaceConfig(parent="eth0", name="net0")


def test_options_take_the_place_of_the_section() -> None:
    options = {**NOTHING, "parent": "eth9", "vlan": 5, "addresses": ("10.9.0.5/24", "fd00::5/64")}
    expected = ContainerInterfaceConfig(parent="eth9", vlan=5, addresses=("10.9.0.5/24", "fd00::5/64"))
    assert attachcommands.wanted(CONFIG, "web", options) == expected
    assert attachcommands.wanted(CONFIG, "db", options) == expected


def test_nobody_says_what_it_gets() -> None:
    with pytest.raises(click.UsageError, match="the configuration has no containers.db, and no option says what"):
        attachcommands.wanted(CONFIG, "db", NOTHING)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"vlan": 5}, "--parent: missing; allowed: the interface that the macvlan is made on, such as eth0"),
        ({"parent": "eth0", "vlan": 5000}, "--vlan: found 5000; allowed: a whole number from 1 to 4094"),
        ({"parent": "eth0", "mode": "router"}, '--mode: found "router"; allowed: bridge | private | vepa | passthru'),
        ({"parent": "eth0", "kind": "vf", "mode": "vepa"}, "--mode: found with kind: vf; allowed: with macvlan only"),
        (
            {"parent": "eth0", "kind": "existing"},
            "--parent: found with kind: existing; allowed: with macvlan or vf only",
        ),
        (
            {"parent": "eth0", "addresses": ("10.9.0.5", "10.9.0.6/24")},
            '--address: found "10.9.0.5"; allowed: an IP address with its prefix length',
        ),
    ],
)
def test_a_wrong_option_is_read_as_a_wrong_key(given: dict[str, Any], said: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        attachcommands.read_options("web", given)
    assert caught.value.message.startswith(said)


def test_whose_interface_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers.docker, "container", lambda name: (name, 7))
    assert attachcommands.find("web", None) == AttachTarget(name="web", pid=7)
    assert attachcommands.find(None, 1) == AttachTarget(name="pid-1", pid=1)
    for container, pid in ((None, None), ("web", 1)):
        with pytest.raises(click.UsageError, match="name a container or give --pid, one of them"):
            attachcommands.find(container, pid)


def test_auto_needs_a_control_plane_and_a_segment() -> None:
    options = {**NOTHING, "parent": "eth9", "addresses": ("auto",)}
    with pytest.raises(click.UsageError, match="--address: found auto; allowed with a control plane only"):
        attachcommands.wanted(CONFIG, "web", options)
    meshed = config.parse(HEAD + "control: {servers: ['10.0.0.9:1']}\n", "f")
    with pytest.raises(click.UsageError, match="--segment: missing; allowed with auto"):
        attachcommands.wanted(meshed, "web", options)
    found = attachcommands.wanted(meshed, "web", {**options, "segment": "lan"})
    assert (found.addresses, found.segment) == (("auto",), "lan")


def test_an_address_goes_back_when_the_interface_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless it was the container's before."""
    control = f"control: {{servers: ['10.0.0.9:1'], state_dir: {tmp_path}}}\n"
    meshed = config.parse(HEAD + control, "f")
    lease = AddressLease(segment="lan", address="10.9.0.7/24", mac="02:aa:00:00:00:07", lease=60.0, part="@web:eth1")
    given: list[AddressLease | None] = []
    tried: list[ContainerInterfaceConfig] = []

    async def own_lease(config: object, segment: str, part: str) -> AddressLease:
        assert (segment, part) == ("lan", "@web:eth1")
        return lease

    async def give_back(config: object, container: str, only: AddressLease | None = None) -> None:
        assert container == "web"
        given.append(only)

    def attach(config: object, target: object, wanted: ContainerInterfaceConfig, elsewhere: object) -> NetPlan:
        tried.append(wanted)
        raise NetError("no")

    monkeypatch.setattr(addressbook, "own_lease", own_lease)
    monkeypatch.setattr(addressbook, "give_back", give_back)
    monkeypatch.setattr(containers, "attach", attach)
    wanted = ContainerInterfaceConfig(parent="eth9", addresses=("auto",), segment="lan")
    with pytest.raises(NetError, match="^no$"):
        attachcommands.attach(meshed, AttachTarget(name="web", pid=1), wanted)
    assert (tried[0].addresses, tried[0].mac) == ((lease.address,), lease.mac)
    assert given == [lease], "and none of its other interfaces'"
    addressbook.files_of(meshed).write(lease)
    with pytest.raises(NetError, match="^no$"):
        attachcommands.attach(meshed, AttachTarget(name="web", pid=1), wanted)
    assert given == [lease], "and none of its other interfaces'"
