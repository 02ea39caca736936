"""Who on the segments of this host claims its addresses and those of its peers."""

from __future__ import annotations

from collections.abc import Iterator

from proxy.check.readers import arp
from proxy.check.report import Unseen
from proxy.check.rules.segment import Answer, Facts
from proxy.check.scene import Scene
from proxy.netdev.observe.observe import Interface, route_to

_PROBE = "0.0.0.0"
"""The sender of an ARP probe (RFC 5227)."""
_NO_ARP_KINDS = frozenset({"ipvlan", "wireguard", "tun"})
_USED = frozenset({"reachable", "stale", "delay", "probe"})


def read(scene: Scene) -> Facts:
    """As root it asks by ARP, a handful of broadcasts on each segment; otherwise it knows what the kernel remembers."""
    questions = list(dict.fromkeys(_questions(scene)))
    heard = arp.ask(questions) if questions else set()
    said = _remembered(scene) if isinstance(heard, Unseen) else sorted(heard)
    answers = [Answer(interface=interface, address=address, mac=mac) for interface, address, mac in said]
    asked = heard if isinstance(heard, Unseen) else tuple(sorted({question.interface for question in questions}))
    return Facts(
        own=tuple(item.address for item in scene.snapshot.addresses),
        own_macs={found.name: found.mac for found in scene.snapshot.interfaces if not _is_loopback(found)},
        peers={target.address: target.peer for target in scene.targets if target.address is not None},
        asked=asked,
        sought={question.target: question.interface for question in questions if question.sender != _PROBE},
        answers=tuple(answers),
    )


def _remembered(scene: Scene) -> Iterator[arp.Heard]:
    """The neighbour table. It may be older than what ARP says, so it is not mixed with that."""
    for item in scene.snapshot.neighbours:
        interface = scene.snapshot.at(item.interface)
        if interface is not None and item.mac and item.state in _USED:
            yield arp.Heard(interface.name, item.address, item.mac)


def _questions(scene: Scene) -> Iterator[arp.Question]:
    for item in scene.snapshot.addresses:
        interface = scene.snapshot.at(item.interface)
        if interface is not None and ":" not in item.address and _has_arp(interface):
            yield arp.Question(interface.name, interface.mac, _PROBE, item.address)
    for target in scene.targets:
        if target.address is None or ":" in target.address:
            continue
        route = route_to(target.address)
        interface = scene.snapshot.at(route.interface) if route and not route.via else None
        if route and route.source and interface is not None and _has_arp(interface):
            yield arp.Question(interface.name, interface.mac, route.source, target.address)
            yield from _through_parent(scene, interface, target.address)


def _through_parent(scene: Scene, interface: Interface, address: str) -> Iterator[arp.Question]:
    """A peer with the MAC of our macvlan does not hear what comes from that MAC; its parent has another."""
    parent = scene.snapshot.parent_of(interface)
    if interface.kind == "macvlan" and parent is not None and _has_arp(parent):
        yield arp.Question(parent.name, parent.mac, _PROBE, address)


def _has_arp(interface: Interface) -> bool:
    usable = interface.up and interface.carrier and not _is_loopback(interface)
    return usable and len(interface.mac) == 17 and interface.kind not in _NO_ARP_KINDS


def _is_loopback(interface: Interface) -> bool:
    return interface.name == "lo" or not interface.mac.strip("0:")
