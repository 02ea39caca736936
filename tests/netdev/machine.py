"""What the tests of proxy/netdev share: a namespace as a user configures it, and everything `ip` says about it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from proxy.config import schema as config
from proxy.config.interfaces import InterfaceConfig
from proxy.demo import netns
from proxy.errors import NetError
from proxy.netdev.apply.apply import apply
from proxy.netdev.apply.kernel import Kernel
from proxy.netdev.observe import observe
from proxy.netdev.observe.networkstate import NetworkState
from proxy.netdev.plan.plan import plan, removal
from proxy.netdev.plan.steps import NetPlan, Operation
from tests.tools.sockets import eventually

HEAD = "host: a\nlinks: {listen: 10.0.0.1:7600, security: none}\n"


def interfaces(text: str) -> dict[str, InterfaceConfig]:
    """The ``interfaces`` section, in YAML's short form."""
    return config.parse(f"{HEAD}interfaces: {text}\n", "f").interfaces


def ip(space: str, *commands: str) -> None:
    for command in commands:
        netns.run(["ip", "-n", space, *command.split()])


def dump(space: str) -> list[str]:
    """All links, addresses, routes and rules as iproute2 lists them, a line each, without what changes by itself. Waits
    for the IPv6 link-local addresses, which the kernel adds some time after an interface is up.
    """
    eventually(lambda: not _without_link_local(space), f"a link-local address on {_without_link_local(space)}")
    asked = {
        "links": "-d link", "addresses": "address", "four": "-4 route show table all", "six": "-6 route show table all",
        "rules of four": "-4 rule", "rules of six": "-6 rule",
    }  # fmt: skip
    said = {key: netns.run(["ip", "-n", space, "-j", *words.split()]) for key, words in asked.items()}
    return sorted(f"{key}: {_still(item)}" for key, text in said.items() for item in json.loads(text or "[]"))


def _without_link_local(space: str) -> list[str]:
    """The interfaces that are about to get one; none where IPv6 is switched off."""
    disabled = "cat /proc/sys/net/ipv6/conf/default/disable_ipv6 2>/dev/null || echo 1"
    if netns.run(netns.inside(space, ["sh", "-c", disabled])).strip() != "0":
        return []
    said = netns.run(["ip", "-n", space, "-j", "address"])
    return [
        link["ifname"]
        for link in json.loads(said or "[]")
        if {"UP", "LOWER_UP"} <= set(link.get("flags", ()))
        and "LOOPBACK" not in link["flags"]
        and not any(each.get("scope") == "link" and each.get("family") == "inet6" for each in link["addr_info"])
    ]


def _still(value: Any) -> Any:
    if isinstance(value, dict):
        # IPv6 checks an address for duplicates for a second; iproute2 prints an empty object for what it does not know.
        volatile = ("tentative", "valid_life_time", "preferred_life_time", "expires", "operstate", "flags")
        return {key: _still(item) for key, item in value.items() if key not in volatile}
    return [_still(item) for item in value if item != {}] if isinstance(value, list) else value


def planned(space: str, wanted: dict[str, InterfaceConfig], host: str = "a") -> NetPlan:
    with netns.entered(space):
        return plan(host, wanted, NetworkState(snapshot=observe.snapshot()))


def lines(found: NetPlan) -> list[str]:
    return [str(step.do) for step in found.steps]


def applied(space: str, wanted: dict[str, InterfaceConfig]) -> NetPlan:
    found = planned(space, wanted)
    with netns.entered(space):
        apply(found, Kernel())
    return found


def removed(space: str, host: str = "a") -> NetPlan:
    with netns.entered(space):
        found = removal(host, NetworkState(snapshot=observe.snapshot()))
        apply(found, Kernel())
    return found


class Failing:
    """A kernel that refuses one operation, and does all the others."""

    def __init__(self, kernel: Any, number: int) -> None:
        self.kernel = kernel
        self.left = number
        self.done: list[Operation] = []

    def run(self, operation: Operation) -> None:
        self.left -= 1
        if self.left == -1:
            raise NetError(f"{operation}: refused for the test")
        self.done.append(operation)
        self.kernel.run(operation)


def fails_at_every_step(space: str, steps: Sequence[Any], run: Callable[[Failing], None], before: list[str]) -> None:
    """Run it with a failure at each step, and compare the machine with what it was."""
    for number in range(len(steps)):
        failing = Failing(Kernel(), number)
        with netns.entered(space):
            try:
                run(failing)
            except NetError as error:
                assert "taken back" in str(error) or "nothing was changed" in str(error), error
            else:
                raise AssertionError(f"step {number} did not fail")
        changed = set(before) ^ set(after := dump(space))
        assert after == before, f"after a failure at step {number}, {steps[number].do}: {sorted(changed)}"
