"""What does not go together among the places of a configuration: addresses, sockets, their directories. See
:mod:`proxy.config.check`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from msgspec import UNSET

from control.base.reading.addresses import (
    Address,
    TcpAddress,
    UnixAddress,
    is_bindable,
    is_inside,
    is_ip,
    is_link_local,
    overlap,
    same_place,
    scope_of,
    without_scope,
)
from control.base.reading.keys import check_page
from control.base.reading.units import quote
from control.base.reading.yamlmap import Document, Path
from proxy.config.loops import Places, addresses_of
from proxy.config.netvalues import ANY, AUTO
from proxy.config.partial import Partial, entries

Place = tuple[Path, Address]


def check_places(config: Partial, document: Document) -> None:
    """Add a problem to ``document`` for whatever does not go together."""
    _check_scopes(config, document)
    _check_listeners(config, document)
    _check_loops(config, document)
    _check_sources(config, document)
    _check_run_dir(config, document)
    _check_telemetry(config, document)


def _check_scopes(config: Partial, document: Document) -> None:
    """Each interface has link-local addresses (IPv6) of its own: which one is meant stands behind the %, or is the one
    that links are bound to.
    """
    links = config.links
    bound = links.interface if links is not UNSET and isinstance(links.interface, str) else AUTO
    bound = "" if bound in (AUTO, ANY) else bound
    for path, address in _all_addresses(config):
        if not isinstance(address, TcpAddress) or not is_link_local(address.host):
            continue
        plain, scope = without_scope(address.host), scope_of(address.host)
        found, of_links = f"found {quote(address.hostport)}", path[0] in ("links", "peers")
        if path == ("links", "listen") and scope and config.control not in (None, UNSET):
            found = f"{found} beside control, which peers are told, and whose interface means nothing on other machines"
            document.problem(path, f"{found}; allowed: an address that is not link-local")
        elif not scope and not (of_links and bound):
            found = f"{found}, which each interface has on its own"
            document.problem(path, f"{found}; allowed: [{plain}%INTERFACE]:{address.port}")
        elif scope and of_links and bound and scope != bound:
            document.problem(path, f"{found} beside links.interface {bound}; allowed: [{plain}%{bound}]:{address.port}")


def _all_addresses(config: Partial) -> Iterator[Place]:
    yield from _own_places(config)
    for name, peer in entries(config.peers):
        if peer is not UNSET and peer.address is not UNSET:
            yield ("peers", name, "address"), peer.address
    yield from _listening(config)
    yield from _delivered(config)
    servers = UNSET if config.control in (None, UNSET) else config.control.servers
    for position, server in enumerate(servers if isinstance(servers, tuple) else ()):
        if server is not UNSET:
            yield ("control", "servers", position), server


def _check_listeners(config: Partial, document: Document) -> None:
    """No two sockets of this proxy in one place."""
    near: dict[str | int, list[Place]] = {}
    for path, address in [*_own_places(config), *_scraped(config), *_listening(config)]:
        place = same_place(address)
        neighbours = near.setdefault(_neighbourhood(place), [])
        other = next((name for name, taken in neighbours if overlap(place, taken)), None)
        if other is not None:
            found = f"found {quote(str(address))}, where {_name(other)} listens"
            document.problem(path, f"{found}; allowed: a place of its own")
        neighbours.append((path, place))


def _check_loops(config: Partial, document: Document) -> None:
    """A service delivered to one of this proxy's own sockets would send its streams round in circles."""
    own = _sockets(config)
    for name, service in entries(config.services):
        if service is not UNSET and service.deliver is not UNSET and (path := own.reached_by(service.deliver)):
            document.problem(("services", name, "deliver"), _circle(service.deliver, "", path))


def _check_sources(config: Partial, document: Document) -> None:
    """Where a service's connections come from is an address of TCP, of the family that the service has."""
    for name, service in entries(config.services):
        if service is UNSET or service.source is UNSET or service.deliver is UNSET:
            continue
        deliver, path = service.deliver, ("services", name, "source")
        if isinstance(deliver, UnixAddress):
            if service.source:
                document.problem(path, "found beside deliver to a unix: socket; allowed: with tcp: only")
            continue
        seen: set[str] = set()
        for position, source in enumerate(service.source):
            if source is UNSET:
                continue
            if source in seen:
                document.problem((*path, position), f"found {quote(source)} a second time; allowed: each once")
            elif is_ip(deliver.host) and (":" in source) != (":" in deliver.host):
                family = "IPv6" if ":" in deliver.host else "IPv4"
                found = f"found {quote(source)} beside deliver to {quote(deliver.host)}"
                document.problem((*path, position), f"{found}; allowed: {family} addresses of this host")
            seen.add(source)


def loops_by_name(config: Partial, seconds: float) -> list[str]:
    """Services whose host names lead to one of this proxy's own sockets, by DNS: a line for each. Waits for DNS at most
    so long; a name without an answer counts as another machine's.
    """
    named = [
        (name, service.deliver)
        for name, service in config.services.items()
        if isinstance(service.deliver, TcpAddress) and not is_ip(service.deliver.host)
    ]
    if not named:
        return []
    own, known = _sockets(config), addresses_of((deliver.host for _, deliver in named), seconds)
    lines = []
    for name, deliver in named:
        for host in known.get(deliver.host, []):
            if path := own.reached_by(TcpAddress(host, deliver.port)):
                lines.append(f"services.{name}.deliver: {_circle(deliver, f', which is {host}', path)}")
                break
    return lines


def missing_sources(config: Partial) -> Iterator[tuple[str, str]]:
    """Services, and the addresses of their `source` that no interface of this machine has: their connections come from
    others there, or there are none. No mistake, as the file may be another machine's, or the address may come. Those
    that the proxy gives to an interface itself are left out.
    """
    given = {each.partition("/")[0] for interface in config.interfaces.values() for each in interface.addresses}
    for name, service in config.services.items():
        for source in service.source:
            if without_scope(source) not in given and not is_bindable(source):
                yield name, source


def _sockets(config: Partial) -> Places:
    return Places([*_own_places(config), *_listening(config), *_all_listening(config)])


def _circle(deliver: Address, being: str, path: Path) -> str:
    found = f"found {quote(str(deliver))}{being}, where {_name(path)} listens"
    return f"{found}; allowed: the socket of the service itself"


def _check_run_dir(config: Partial, document: Document) -> None:
    """Whoever has a socket's directory mounted reaches every socket in it: those that command have one of their own."""
    if not isinstance(config.run_dir, str):
        return
    places: list[tuple[Path, str, str]] = []
    for path, address in [*_listening(config), *_delivered(config)]:
        if isinstance(address, UnixAddress):
            places.append((path, str(address), address.path))
    every = config.all_upstreams
    if every not in (None, UNSET) and isinstance(every.directory, str):
        places.append((("all_upstreams", "directory"), every.directory, every.directory))
    own = f"run_dir {config.run_dir}, where the sockets that command live (docs/upgrade.md)"
    elsewhere = f", such as {config.socket_dir}" if isinstance(config.socket_dir, str) else ""
    for path, found, place in places:
        if is_inside(place, config.run_dir):
            document.problem(path, f"found {quote(found)}, in {own}; allowed: another directory{elsewhere}")
    if isinstance(config.socket_dir, str) and _one_within_the_other(config.socket_dir, config.run_dir):
        key = ("socket_dir",) if ("socket_dir",) in document.lines else ("run_dir",)
        text = f"found socket_dir {quote(config.socket_dir)} and {own}; allowed: neither within the other"
        document.problem(key, text)


def _check_telemetry(config: Partial, document: Document) -> None:
    """Whoever monitors has the directory of that socket mounted, and is to reach nothing else there; and who calls
    services, or commands, is not to reach it.
    """
    check_page(config.telemetry, document)
    path = UNSET if config.telemetry is UNSET else config.telemetry.socket
    if not isinstance(path, str):
        return
    key, own = ("telemetry", "socket"), os.path.dirname(path)
    every = config.all_upstreams
    directories = {"run_dir": config.run_dir, "socket_dir": config.socket_dir}
    if every not in (None, UNSET):
        directories["all_upstreams.directory"] = every.directory
    for name, directory in directories.items():
        if isinstance(directory, str) and _one_within_the_other(own, directory):
            found = f"found {quote(path)} beside {name} {directory}"
            document.problem(key, f"{found}; allowed: a directory of its own, such as /run/hostlane-telemetry")
            return
    for place, address in [*_listening(config), *_delivered(config)]:
        if isinstance(address, UnixAddress) and is_inside(address.path, own):
            found = f"found {quote(str(address))}, in the directory of telemetry.socket"
            document.problem(place, f"{found}; allowed: another directory")


def _one_within_the_other(one: str, other: str) -> bool:
    return is_inside(one, other) or is_inside(other, one)


def _delivered(config: Partial) -> Iterator[Place]:
    for name, service in entries(config.services):
        if service is not UNSET and service.deliver is not UNSET:
            yield ("services", name, "deliver"), service.deliver


def _neighbourhood(place: Address) -> str | int:
    """Only what has this in common can meet; a host may have thousands of upstreams."""
    return place.port if isinstance(place, TcpAddress) else place.path


def _own_places(config: Partial) -> Iterator[Place]:
    if config.links is not UNSET and isinstance(config.links.listen, TcpAddress):
        yield ("links", "listen"), config.links.listen


def _scraped(config: Partial) -> Iterator[Place]:
    """Not one of those that a service must not be delivered to: why should peers not scrape through the mesh?"""
    if config.telemetry is not UNSET and isinstance(config.telemetry.listen, TcpAddress):
        yield ("telemetry", "listen"), config.telemetry.listen


def _listening(config: Partial) -> Iterator[Place]:
    for name, upstream in entries(config.upstreams):
        if upstream is not UNSET and upstream.listen is not UNSET:
            yield ("upstreams", name, "listen"), upstream.listen
    if config.connect not in (None, UNSET) and config.connect.listen is not UNSET:
        yield ("connect", "listen"), config.connect.listen


def _all_listening(config: Partial) -> Iterator[Place]:
    """Where this host's own services get an upstream because all do."""
    every = config.all_upstreams
    if every in (None, UNSET) or UNSET in (every.directory, every.layout, config.socket_dir):
        return
    named = dict(entries(config.upstreams))
    for name, _ in entries(config.services):
        if name not in named:
            yield ("all_upstreams", name), UnixAddress(every.path(config.socket_dir, name))


def _name(path: Path) -> str:
    return ".".join(str(part) for part in path[:2])
