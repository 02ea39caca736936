"""The layers from this thread's network namespace to an address, as far as they can be followed on this machine.

A veth leads into another namespace; only root may follow it there. Nothing is sent.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from pyroute2 import IPRoute, NetlinkError

from proxy.check.readers import ruleset, tracking
from proxy.check.readers.namespaces import enter, label, one_process_each
from proxy.check.report import Unchecked
from proxy.explain.account import PathLayer
from proxy.netdev.observe.observe import NetInterface, NetSnapshot, RouteAnswer, route_to, snapshot

SENT, FORWARDED = ("output", "postrouting"), ("prerouting", "forward", "postrouting")
"""Netfilter hooks that a packet passes in the namespace that it is sent from, and in one that routes it on."""
_LAYERED = frozenset({"macvlan", "macvtap", "ipvlan", "vlan"})
_NAMESPACES = 4
"""A way through more of them is followed no further."""


def walk(address: str, *, source: str | None = None, device: str = "") -> tuple[PathLayer, ...]:
    """All layers, in the order in which a packet passes them. Raises NetError when the kernel does not answer.

    Args:
        source: the address that it comes from; device: the interface that its socket is bound to.
    """
    return tuple(_leave(address, "here", SENT, _NAMESPACES, source, device))


def _leave(
    address: str, where: str, hooks: tuple[str, ...], depth: int, source: str | None = None, device: str = ""
) -> Iterator[PathLayer]:
    here = snapshot()
    bound = here.named(device) if device else None
    if source is not None and not any(item.address == source for item in here.addresses):
        source = None
    route = route_to(address, source=source, interface=bound.index if bound else None)
    interface = here.at(route.interface) if route else None
    if route is None or interface is None:
        yield PathLayer(name="no route", read=f"there is none to {address}", where=where, seen=False)
        return
    yield _rules(where, hooks)
    yield from _through(here, interface, route, where)
    if interface.kind in _LAYERED:
        yield _parent(here, interface, where)
    elif interface.kind == "veth":
        yield from _other_end(address, interface, route, depth)


def _through(here: NetSnapshot, interface: NetInterface, route: RouteAnswer, where: str) -> Iterator[PathLayer]:
    addresses = " ".join(str(item) for item in here.addresses_of(interface.index) if item.scope == 0)
    read = f"{addresses or 'no address'}{f', router {route.via}' if route.via else ''}"
    if not (interface.up and interface.carrier):
        read = f"{'no carrier' if interface.up else 'down'}: nothing passes; {read}"
    if interface.kind == "bridge":
        yield _bridge(interface, where)
    elif interface.kind == "macvlan":
        read = f"{read}; mode {interface.macvlan_mode}: past the bridges and rules of the host"
        yield PathLayer(name=f"macvlan {interface.name}", read=read, where=where)
    else:
        yield PathLayer(name=f"{interface.kind or 'interface'} {interface.name}", read=read, where=where)


def _bridge(interface: NetInterface, where: str) -> PathLayer:
    return PathLayer(
        name=f"bridge {interface.name}", read=f"MTU {interface.mtu}", where=where,
        costs="a look-up for each frame, and whatever hangs on bridges",
    )  # fmt: skip


def _rules(where: str, hooks: tuple[str, ...]) -> PathLayer:
    rules, count = ruleset.read(), tracking.count()
    name = "netfilter"
    if isinstance(rules, Unchecked):
        return PathLayer(name=name, read=f"{rules.what}: {rules.why}", where=where, seen=False)
    passed = [chain for chain in rules.chains if chain.hook in hooks]
    if not passed:
        return PathLayer(name=name, read=f"no rules at {', '.join(hooks)}", where=where)
    number = sum(chain.rules for chain in passed)
    named = {chain.hook for chain in passed}
    read = f"{number} rules in {len(passed)} chains at {', '.join(hook for hook in hooks if hook in named)}"
    pays = ["the rules"]
    if rules.nat:
        pays.append("NAT")
    if rules.conntrack:
        pays.append("connection tracking")
        read += f"; {count} connections tracked now" if isinstance(count, int) else ""
    return PathLayer(name=name, read=read, where=where, costs=" and ".join(pays))


def _parent(here: NetSnapshot, interface: NetInterface, where: str) -> PathLayer:
    """The parent of a macvlan, through which its frames leave past every bridge and rule that is attached there."""
    if interface.parent_netns is None:
        parent = here.at(interface.parent)
        return PathLayer(name=f"parent {parent.name if parent else '?'}", read="the cable", where=where)
    pid = _holder(interface.parent_netns)
    if pid is None:
        return PathLayer(name="parent", read="in another namespace; only root may look there", where="", seen=False)
    parent = enter(pid, snapshot).at(interface.parent)
    return PathLayer(name=f"parent {parent.name if parent else '?'}", read="the cable", where=label(pid))


def _other_end(address: str, interface: NetInterface, route: RouteAnswer, depth: int) -> Iterator[PathLayer]:
    if interface.parent_netns is None:
        yield PathLayer(name="other end", read="of the veth, in the same namespace", where="here")
        return
    pid = _holder(interface.parent_netns)
    if pid is None or depth == 0:
        why = "only root may follow it" if os.geteuid() != 0 else "nobody runs there who would lead the way"
        yield PathLayer(name="other end", read=f"of the veth, in another namespace; {why}", where="", seen=False)
        return
    yield from enter(pid, lambda: tuple(_arrive(address, interface, route, label(pid), depth - 1)))


def _arrive(address: str, came: NetInterface, route: RouteAnswer, where: str, depth: int) -> Iterator[PathLayer]:
    """The layers from the other end of the veth ``came`` on. Runs in the namespace of that end."""
    there = snapshot()
    port = there.at(came.parent)
    if port is None:
        yield PathLayer(name="other end", read="of the veth; it is gone", where=where, seen=False)
        return
    yield PathLayer(name=f"veth {port.name}", read="the other end", where=where)
    bridge = there.at(port.master)
    if bridge is not None:
        yield _bridge(bridge, where)
    if route.via is not None and any(item.address == route.via for item in there.addresses):
        yield from _leave(address, where, FORWARDED, depth)


def _holder(nsid: int) -> int | None:
    """A process in the network namespace to which this namespace has given the number `nsid`; None if not found."""
    if os.geteuid() != 0:
        return None
    with IPRoute() as socket:
        for pid in one_process_each():
            with contextlib.suppress(NetlinkError):
                found = socket.get_netnsid(pid=pid)
                if found is not None and found["nsid"] == nsid:
                    return pid
    return None
