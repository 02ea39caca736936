"""What no single value of ``interfaces``, ``containers`` and ``segments`` can tell. See :mod:`proxy.config.check`."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from msgspec import UNSET

from control.base.reading.units import quote
from control.base.reading.yamlmap import Document, Path, render_path
from proxy.config.interfaces import ONLY_WITH
from proxy.config.netvalues import AUTO, DEFAULT, STABLE
from proxy.config.partial import Partial, entries


def check_interfaces(config: Partial, document: Document) -> None:
    """Add a problem to ``document`` for whatever does not go together."""
    own = dict(entries(config.interfaces))
    addresses: dict[str, Path] = {}
    macs: dict[str, Path] = {}
    tables: dict[int, Path] = {}
    for path, interface in _all(config):
        _check_keys(interface, path, document)
        _check_addresses(interface, path, addresses, document)
        _check_routes(interface, path, document)
        if isinstance(interface.mac, str) and interface.mac != STABLE:
            other = macs.setdefault(interface.mac, path)
            if other != path:
                found = f"found {quote(interface.mac)}, which is also that of {render_path(other)}"
                document.problem((*path, "mac"), f"{found}; allowed: a MAC of its own")
        table = interface.source_table if path[0] == "interfaces" else None
        if isinstance(table, int):
            other = tables.setdefault(table, path)
            if other != path:
                found = f"found {table}, which is also that of {render_path(other)}"
                document.problem((*path, "source_table"), f"{found}; allowed: a table of its own")
        if path[0] == "containers" and interface.kind == "existing":
            document.problem((*path, "kind"), "found existing; allowed: macvlan | vf")
        if isinstance(interface.parent, str):
            _check_parent(interface, path, own, document)
    _check_leased(config, document)
    _check_passthru(config, document)
    _check_segments(config, document)


def _check_keys(interface: Partial, path: Path, document: Document) -> None:
    kind = interface.kind
    if kind is UNSET:
        return
    for key, kinds in ONLY_WITH.items():
        if kind not in kinds and (*path, key) in document.lines:
            document.problem((*path, key), f"found with kind: {kind}; allowed: with {' or '.join(kinds)} only")
    if kind == "macvlan" and interface.mode == "passthru" and (*path, "mac") in document.lines:
        document.problem((*path, "mac"), "found with mode: passthru, which has its parent's; allowed: with other modes")
    if kind in ONLY_WITH["parent"] and interface.parent is None and (*path, "parent") not in document.lines:
        document.problem((*path, "parent"), f"missing; allowed: the interface that the {kind} is made on, such as eth0")


def _check_parent(interface: Partial, path: Path, own: dict[str, Partial], document: Document) -> None:
    above = own.get(interface.parent)
    if interface.parent == path[1] and path[0] == "interfaces":
        document.problem((*path, "parent"), f"found {quote(interface.parent)}, itself; allowed: another interface")
    elif above is not None and above is not UNSET and above.kind in ("macvlan", "vf"):
        found = f"found {quote(interface.parent)}, which is made here too"
        document.problem((*path, "parent"), f"{found}; allowed: an interface that exists before")


def _check_addresses(interface: Partial, path: Path, seen: dict[str, Path], document: Document) -> None:
    for position, address in _items(interface.addresses):
        where = (*path, "addresses", position)
        ip = address.partition("/")[0]
        if ip == AUTO:
            continue
        other = seen.setdefault(ip, where)
        if other != where:
            found = f"found {quote(address)}, which is also {render_path(other)}"
            document.problem(where, f"{found}; allowed: an address of its own")


def _check_routes(interface: Partial, path: Path, document: Document) -> None:
    addresses = [address for _, address in _items(interface.addresses)]
    networks = [ipaddress.ip_interface(address).network for address in addresses if address != AUTO]
    for position, route in _items(interface.routes):
        where = (*path, "routes", position)
        if route.to is UNSET or route.via is UNSET:
            continue
        if route.via is None:
            if route.to == DEFAULT:
                document.problem((*where, "via"), "missing; allowed with to: default: the router's IP address")
            continue
        via = ipaddress.ip_address(route.via)
        if route.to != DEFAULT and ipaddress.ip_network(route.to).version != via.version:
            document.problem((*where, "via"), f"found {quote(route.via)}; allowed: of the same IP version as to")
        elif AUTO in addresses or interface.kind == "existing" or via.is_link_local:
            continue
        elif not any(via in net for net in networks):
            found = f"found {quote(route.via)}, which no address of this interface has on its network"
            document.problem((*where, "via"), f"{found}; allowed: a neighbour")


def _check_leased(config: Partial, document: Document) -> None:
    """One lease a segment for the host, each on one interface; one for each container's interface."""
    links: Partial = getattr(config, "links", UNSET)
    by_default = UNSET if links is UNSET else links.segment
    holders: dict[str, Path] = {}
    all_known = all(value is not UNSET for _, value in entries(config.interfaces))
    for path, interface in _all(config):
        all_known &= isinstance(interface.addresses, tuple) and UNSET not in (*interface.addresses, interface.segment)
        places = [position for position, address in _items(interface.addresses) if address == AUTO]
        if not places:
            if isinstance(interface.segment, str):
                document.problem((*path, "segment"), "found without auto; allowed: with addresses: [auto] only")
            continue
        where = (*path, "addresses", places[0])
        segment = interface.segment or by_default
        if len(places) > 1:
            document.problem((*path, "addresses", places[1]), "found auto a second time; allowed: once an interface")
        if getattr(config, "control", UNSET) is None:
            document.problem(where, "found auto without control; allowed: with a control plane only")
        elif segment is None:
            text = "missing; allowed with addresses: [auto]: the name of an address pool of the control plane"
            document.problem((*path, "segment"), f"{text} (or links.segment)")
        elif path[0] == "interfaces" and isinstance(segment, str):
            other = holders.setdefault(segment, path)
            if other != path:
                found = f"found auto, as in {render_path(other)}, on segment {segment}"
                document.problem(where, f"{found}; allowed: one interface of this host for each segment")
        if interface.mac not in (STABLE, UNSET):
            found = f"found {quote(interface.mac)} with addresses: [auto]"
            document.problem((*path, "mac"), f"{found}; allowed: no mac, because the control plane gives it too")
    leased = links is not UNSET and isinstance(links.segment, str) and links.address not in (None, UNSET)
    if leased and all_known and isinstance(config.interfaces, dict) and links.segment not in holders:
        text = "found auto, and no interface that gets it; allowed: with interfaces: NAME: {addresses: [auto]}"
        document.problem(("links", "address"), f"{text} on segment {links.segment}")


def _check_passthru(config: Partial, document: Document) -> None:
    """A passthru child takes its parent over; the kernel refuses a second child, of whatever mode."""
    children: dict[tuple[str, int | None], list[tuple[Path, Partial]]] = {}
    for path, interface in _all(config):
        if interface.kind == "macvlan" and isinstance(interface.parent, str) and interface.vlan is not UNSET:
            children.setdefault((interface.parent, interface.vlan), []).append((path, interface))
    for siblings in children.values():
        takes = next((path for path, interface in siblings if interface.mode == "passthru"), None)
        for path, interface in siblings if takes else ():
            if path != takes:
                found = f"found {quote(interface.parent)}, which {render_path(takes or ())} takes for itself (passthru)"
                document.problem((*path, "parent"), f"{found}; allowed: a parent of its own")


def _check_segments(config: Partial, document: Document) -> None:
    seen: dict[tuple[Any, Any], str] = {}
    for name, segment in entries(config.segments):
        if segment is UNSET or segment.parent is UNSET or segment.vlan is UNSET:
            continue
        other = seen.setdefault((segment.parent, segment.vlan), name)
        if other != name:
            tag = f", vlan {segment.vlan}" if segment.vlan else ""
            found = f"found {quote(segment.parent)}{tag}, which is also segments.{other}"
            document.problem(("segments", name, "parent"), f"{found}; allowed: each segment once")


def _all(config: Partial) -> Iterator[tuple[Path, Partial]]:
    for section in ("interfaces", "containers"):
        for name, interface in entries(getattr(config, section)):
            if interface is not UNSET:
                yield (section, name), interface


def _items(values: Any) -> list[tuple[int, Any]]:
    """The items of a list with their positions, without those that are wrong by themselves."""
    items = enumerate(values if isinstance(values, tuple) else ())
    return [(position, value) for position, value in items if value is not UNSET]
