"""Who on the segments of this host claims its addresses and those of its peers."""

from __future__ import annotations

from collections.abc import Iterator

from proxy.check.context import DiagnosisContext
from proxy.check.readers import arp
from proxy.check.report import Unchecked
from proxy.check.rules.segment import AddressClaim, SegmentFacts
from proxy.netdev.observe.observe import NetInterface

_PROBE = "0.0.0.0"
"""The sender of an ARP probe (RFC 5227)."""
_NO_ARP_KINDS = frozenset({"ipvlan", "wireguard", "tun"})
_USED = frozenset({"reachable", "stale", "delay", "probe"})


def read(context: DiagnosisContext) -> SegmentFacts:
    """As root it asks by ARP, a handful of broadcasts on each segment; otherwise it knows what the kernel remembers."""
    questions = list(dict.fromkeys(_questions(context)))
    heard = arp.ask(questions) if questions else set()
    said = _remembered(context) if isinstance(heard, Unchecked) else sorted(heard)
    answers = [AddressClaim(interface=interface, address=address, mac=mac) for interface, address, mac in said]
    asked = heard if isinstance(heard, Unchecked) else tuple(sorted({question.interface for question in questions}))
    return SegmentFacts(
        own=tuple(item.address for item in context.snapshot.addresses),
        own_macs={found.name: found.mac for found in context.snapshot.interfaces if not _is_loopback(found)},
        peers={target.address: target.peer for target in context.targets if target.address is not None},
        asked=asked,
        sought={question.target: question.interface for question in questions if question.sender != _PROBE},
        answers=tuple(answers),
    )


def _remembered(context: DiagnosisContext) -> Iterator[arp.ArpSighting]:
    """The neighbour table. It may be older than what ARP says, so it is not mixed with that."""
    for item in context.snapshot.neighbours:
        interface = context.snapshot.at(item.interface)
        if interface is not None and item.mac and item.state in _USED:
            yield arp.ArpSighting(interface.name, item.address, item.mac)


def _questions(context: DiagnosisContext) -> Iterator[arp.ArpRequest]:
    for item in context.snapshot.addresses:
        interface = context.snapshot.at(item.interface)
        if interface is not None and ":" not in item.address and _has_arp(interface):
            yield arp.ArpRequest(interface.name, interface.mac, _PROBE, item.address)
    for target in context.targets:
        if target.address is None or ":" in target.address:
            continue
        route = context.route_to(target.address)
        interface = context.snapshot.at(route.interface) if route and not route.via else None
        if route and route.source and interface is not None and _has_arp(interface):
            yield arp.ArpRequest(interface.name, interface.mac, route.source, target.address)
            yield from _through_parent(context, interface, target.address)


def _through_parent(context: DiagnosisContext, interface: NetInterface, address: str) -> Iterator[arp.ArpRequest]:
    """Ask through the macvlan's parent as well, which has another MAC: a peer whose MAC is that of our macvlan does not
    hear what comes from it.
    """
    parent = context.snapshot.parent_of(interface)
    if interface.kind == "macvlan" and parent is not None and _has_arp(parent):
        yield arp.ArpRequest(parent.name, parent.mac, _PROBE, address)


def _has_arp(interface: NetInterface) -> bool:
    usable = interface.up and interface.carrier and not _is_loopback(interface)
    return usable and len(interface.mac) == 17 and interface.kind not in _NO_ARP_KINDS


def _is_loopback(interface: NetInterface) -> bool:
    return interface.name == "lo" or not interface.mac.strip("0:")
