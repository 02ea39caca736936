"""What no single value of a configuration can tell: values that do not go together.

A value that is wrong by itself is UNSET here (see :mod:`control.base.reading.decode`). The checks pass over it, so that
one mistake gives one line and not a trail of them.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from typing import Any

from msgspec import UNSET

from control.base.reading.addresses import (
    HOST_PORT,
    IP_PORT,
    Address,
    TcpAddress,
    UnixAddress,
    is_inside,
    is_ip,
    is_wildcard,
    overlap,
    same_place,
)
from control.base.reading.units import quote
from control.base.reading.yamlmap import Document, Path
from proxy.config.interfacecheck import check_interfaces
from proxy.config.loops import Places, addresses_of

Partial = Any
"""A `proxy.config.schema.Config` in which every value may be UNSET, which its type does not say."""

MTLS_NEEDS = (
    'a mapping with certificate, key, ca for mutual TLS (or "security: none" beside it, only on an isolated segment)'
)
"""What ``links.tls`` must be where ``links.security`` is mtls."""

OVERFLOW_UID = "/proc/sys/kernel/overflowuid"
DEFAULT_OVERFLOW_UID = 65534

Place = tuple[Path, Address]

ALL = "all"
"""Instead of a mapping under ``upstreams``: one for every service of the mesh."""


def expand(document: Document) -> None:
    """``upstreams: all`` becomes an ``all_upstreams`` with every default, unless the file has one."""
    data = document.data
    if isinstance(data, dict) and data.get("upstreams") == ALL:
        data["upstreams"] = {}
        if data.get("all_upstreams") is None:
            data["all_upstreams"] = {}
            document.lines[("all_upstreams",)] = document.line(("upstreams",))


def check(config: Partial, document: Document, unknown: set[Path]) -> None:
    """Add a problem to ``document`` for whatever does not go together; ``unknown``: sections that have unknown keys."""
    offers_known = () not in unknown and not any(_shapes_offers(problem.path) for problem in document.problems)
    _check_listen(config, document)
    if not {(), ("links",)} & unknown:
        _check_security(config, document)
    _check_control(config, document)
    _check_peers(config, document)
    _check_listeners(config, document)
    _check_loops(config, document)
    _check_sources(config, document)
    _check_run_dir(config, document)
    _check_telemetry(config, document)
    _check_socket_rights(config, document)
    _check_pump(document)
    _check_limits(config, document)
    _check_rules(config, document, unknown)
    check_interfaces(config, document)
    _check_pool(config, document)
    if offers_known and config.control is None:
        _check_offered(config, document)


def _check_listen(config: Partial, document: Document) -> None:
    """Links arrive at an address that the file gives, or at one that the control plane leases."""
    links, listen = config.links, ("links", "listen")
    if links is UNSET or links.address is UNSET:
        return
    if links.address is None:
        if listen not in document.lines:
            document.problem(listen, f"missing; allowed: {IP_PORT} (or links.address: auto)")
        return
    if listen in document.lines:
        document.problem(listen, "found beside links.address; allowed: one of them")
    if config.control is None:
        document.problem(("links", "address"), "found auto without control; allowed: with a control plane only")
    if links.segment is None:
        text = "missing; allowed with links.address: auto: the name of an address pool of the control plane"
        document.problem(("links", "segment"), text)


def _check_security(config: Partial, document: Document) -> None:
    links = config.links
    if links is not UNSET and links.security == "mtls" and links.tls is None and config.control is None:
        path = ("links", "tls")
        document.problem(path, f"missing; allowed: {MTLS_NEEDS}")


def _check_control(config: Partial, document: Document) -> None:
    """Whoever registers says where its peers reach it."""
    if config.control in (None, UNSET):
        return
    path = ("control", "servers")
    servers = config.control.servers
    if servers == ():
        document.problem(path, f"found no server; allowed: a list of {HOST_PORT}")
    seen: set[Address] = set()
    for position, server in enumerate(servers if isinstance(servers, tuple) else ()):
        if server is UNSET:
            continue
        if same_place(server) in seen:
            document.problem((*path, position), f"found {quote(server.hostport)} a second time; allowed: each once")
        seen.add(same_place(server))
    listen = UNSET if config.links is UNSET else config.links.listen
    if isinstance(listen, TcpAddress) and is_wildcard(listen.host):
        found = f"found {quote(listen.hostport)}, which stands for every address of this machine, beside control"
        document.problem(("links", "listen"), f"{found}; allowed: the one address that peers shall dial")


def _check_peers(config: Partial, document: Document) -> None:
    addresses: dict[Address, str] = {}
    if config.links is not UNSET and isinstance(config.links.listen, TcpAddress):
        addresses[config.links.listen] = "links.listen of this host"
    for name, peer in _entries(config.peers):
        path = ("peers", name)
        if name == config.host:
            document.problem(path, f"found this host's own name {quote(name)}; allowed: names of other hosts")
        if peer is UNSET:
            continue
        if isinstance(peer.address, TcpAddress):
            other = addresses.setdefault(same_place(peer.address), f"peers.{name}.address")
            if other != f"peers.{name}.address":
                text = f"found {quote(peer.address.hostport)}, which is also {other}; allowed: an address of its own"
                document.problem((*path, "address"), text)
        _check_repeated(peer.services, (*path, "services"), document)


def _check_repeated(services: object, path: Path, document: Document) -> None:
    seen: set[object] = {UNSET}
    for position, service in enumerate(services if isinstance(services, tuple) else ()):
        if service in seen and service is not UNSET:
            document.problem((*path, position), f"found {quote(service)} a second time; allowed: each service once")
        seen.add(service)


def _check_listeners(config: Partial, document: Document) -> None:
    """No two sockets of this proxy in one place."""
    near: dict[str | int, list[Place]] = {}
    for path, address in [*_own_places(config), *_listening(config)]:
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
    for name, service in _entries(config.services):
        if service is not UNSET and service.deliver is not UNSET and (path := own.reached_by(service.deliver)):
            document.problem(("services", name, "deliver"), _circle(service.deliver, "", path))


def _check_sources(config: Partial, document: Document) -> None:
    """Where a service's connections come from is an address of TCP, of the family that the service has."""
    for name, service in _entries(config.services):
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
    for name, service in _entries(config.services):
        if service is not UNSET and service.deliver is not UNSET:
            yield ("services", name, "deliver"), service.deliver


def _neighbourhood(place: Address) -> str | int:
    """Only what has this in common can meet; a host may have thousands of upstreams."""
    return place.port if isinstance(place, TcpAddress) else place.path


def _check_socket_rights(config: Partial, document: Document) -> None:
    for name, upstream in _entries(config.upstreams):
        for key in ("mode", "owner", "group"):
            path = ("upstreams", name, key)
            if upstream is not UNSET and isinstance(upstream.listen, TcpAddress) and path in document.lines:
                document.problem(path, "found with a tcp: socket, which has none; allowed: with unix: only")


def _check_pump(document: Document) -> None:
    path = ("pump", "busy_poll_us")
    if path in document.lines and ("pump", "busy_poll") in document.lines:
        document.problem(path, "found beside busy_poll, which replaces it; allowed: one of them")


def _check_limits(config: Partial, document: Document) -> None:
    if config.limits is UNSET or config.limits.memory in (UNSET, None):
        return
    memory = config.limits.memory
    keys = ("stream_credit", "memory_per_peer")
    sizes: dict[Path, Any] = {("limits", key): getattr(config.limits, key) for key in keys}
    if config.links is not UNSET:
        sizes["links", "replay_buffer"] = config.links.replay_buffer
    for path, found in sizes.items():
        if found not in (UNSET, None) and found > memory:
            document.problem(path, f"found {found} bytes; allowed: at most limits.memory, {memory} bytes")


def _check_rules(config: Partial, document: Document, unknown: set[Path]) -> None:
    """A rule that could let in everybody, or nobody, was meant otherwise."""
    known = () not in unknown and isinstance(config.peers, dict) and isinstance(config.host, str)
    # With a control plane, hosts come and go.
    hosts = [config.host, *config.peers] if known and config.control is None else None
    anybody = overflow_uids()
    for name, service in _entries(config.services):
        rules = service.allow if service is not UNSET and service.allow is not UNSET else ()
        for position, rule in enumerate(rules):
            path = ("services", name, "allow", position)
            if path not in document.lines or rule is UNSET or path in unknown:
                continue
            if rule.host is rule.service is rule.uid is None:
                found = "found a rule that gives neither host nor service nor uid"
                document.problem(path, f"{found}; allowed: one or more of them (no allow at all lets everybody in)")
                continue
            if rule.uid in anybody:
                found = f"found {rule.uid}, which stands for every user that a namespace does not map"
                document.problem((*path, "uid"), f"{found}; allowed: a user of the caller's own, mapped on its host")
            if hosts is not None and rule.host not in (None, UNSET, *hosts):
                near = difflib.get_close_matches(rule.host, hosts, n=1)
                hint = f' (did you mean "{near[0]}"?)' if near else ""
                found = f"found {quote(rule.host)}, which is neither this host nor one of its peers{hint}"
                document.problem((*path, "host"), f"{found}; allowed: {', '.join(sorted(hosts)[:20])}")


def overflow_uids() -> set[int]:
    """What the kernel gives instead of a uid that the reader's user namespace does not map: here, and by default, since
    the calling host's kernel may be set otherwise than this one's."""
    try:
        with open(OVERFLOW_UID, encoding="ascii") as file:
            return {DEFAULT_OVERFLOW_UID, int(file.read())}
    except (OSError, ValueError):
        return {DEFAULT_OVERFLOW_UID}


def _check_pool(config: Partial, document: Document) -> None:
    if config.pool is not UNSET and UNSET not in (config.pool.idle_min, config.pool.idle_max):
        low, high = config.pool.idle_min, config.pool.idle_max
        if low > high:
            path = ("pool", "idle_max" if ("pool", "idle_max") in document.lines else "idle_min")
            document.problem(path, f"found idle_min {low:g} s above idle_max {high:g} s; allowed: not above it")


def _check_offered(config: Partial, document: Document) -> None:
    offered = {*config.services, *(service for peer in config.peers.values() for service in peer.services)}
    for name, _ in _entries(config.upstreams):
        if name not in offered:
            near = difflib.get_close_matches(name, offered, n=1)
            hint = f' (did you mean "{near[0]}"?)' if near else ""
            found = f"found no peer and no service of this host that offers {quote(name)}{hint}"
            allowed = ", ".join(sorted(offered)[:20]) or "none so far"
            document.problem(("upstreams", name), f"{found}; allowed: {allowed}")


def _shapes_offers(path: Path) -> bool:
    """Whether a problem at ``path`` may be the reason why a service seems to be offered by nobody."""
    return path == () or path[0] == "services" or (path[0] == "peers" and "address" not in path[2:3])


def _entries(section: Any) -> list[tuple[str, Any]]:
    return list(section.items()) if isinstance(section, dict) else []


def _own_places(config: Partial) -> Iterator[Place]:
    if config.links is not UNSET and isinstance(config.links.listen, TcpAddress):
        yield ("links", "listen"), config.links.listen


def _listening(config: Partial) -> Iterator[Place]:
    for name, upstream in _entries(config.upstreams):
        if upstream is not UNSET and upstream.listen is not UNSET:
            yield ("upstreams", name, "listen"), upstream.listen


def _all_listening(config: Partial) -> Iterator[Place]:
    """Where this host's own services get an upstream because all do."""
    every = config.all_upstreams
    if every in (None, UNSET) or UNSET in (every.directory, every.layout, config.socket_dir):
        return
    named = dict(_entries(config.upstreams))
    for name, _ in _entries(config.services):
        if name not in named:
            yield ("all_upstreams", name), UnixAddress(every.path(config.socket_dir, name))


def _name(path: Path) -> str:
    return ".".join(str(part) for part in path[:2])
