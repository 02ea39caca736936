from __future__ import annotations

from typing import Any

import click
import pytest

from proxy import config
from proxy.configinterfaces import ContainerInterface
from proxy.netdev import attachcommands, containers
from proxy.netdev.containers import Target
from tests.netdev.machine import HEAD

CONFIG = config.parse(HEAD + "containers: {web: {parent: eth0, name: net0}}\n", "f")
NOTHING = {"kind": None, "parent": None, "addresses": ()}


def test_the_configuration_says_what_a_container_gets() -> None:
    assert attachcommands.wanted(CONFIG, "web", NOTHING) == ContainerInterface(parent="eth0", name="net0")


def test_options_take_the_place_of_the_section() -> None:
    options = {**NOTHING, "parent": "eth9", "vlan": 5, "addresses": ("10.9.0.5/24", "fd00::5/64")}
    expected = ContainerInterface(parent="eth9", vlan=5, addresses=("10.9.0.5/24", "fd00::5/64"))
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
    monkeypatch.setattr(containers.docker, "container_pid", lambda name: 7)
    assert attachcommands.find("web", None) == Target(name="web", pid=7)
    assert attachcommands.find(None, 1) == Target(name="pid-1", pid=1)
    for container, pid in ((None, None), ("web", 1)):
        with pytest.raises(click.UsageError, match="name a container or give --pid, one of them"):
            attachcommands.find(container, pid)
