"""What no single value of a configuration can tell: values that do not go together.

A value that is wrong by itself is UNSET here (see :mod:`control.base.reading.decode`). The checks pass over it, so that
one mistake gives one line and not a trail of them.
"""

from __future__ import annotations

import difflib
from typing import Any

from msgspec import UNSET

from control.base.reading.addresses import (
    HOST_PORT,
    IP_PORT,
    Address,
    TcpAddress,
    is_wildcard,
    same_place,
)
from control.base.reading.units import quote
from control.base.reading.yamlmap import Document, Path
from proxy.config.interfacecheck import check_interfaces
from proxy.config.partial import Partial, entries
from proxy.config.placecheck import check_places

MTLS_NEEDS = (
    'a mapping with certificate, key, ca for mutual TLS (or "security: none" beside it, only on an isolated segment)'
)
"""What ``links.tls`` must be where ``links.security`` is mtls."""

OVERFLOW_UID = "/proc/sys/kernel/overflowuid"
DEFAULT_OVERFLOW_UID = 65534

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
    check_places(config, document)
    _check_socket_rights(config, document)
    _check_pump(document)
    _check_limits(config, document)
    _check_rules(config, document, unknown)
    check_interfaces(config, document)
    _check_pool(config, document)
    _check_access(config, document)
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
    for name, peer in entries(config.peers):
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


def _check_socket_rights(config: Partial, document: Document) -> None:
    sockets: list[tuple[Path, Any]] = [(("upstreams", name), each) for name, each in entries(config.upstreams)]
    for place, upstream in [*sockets, (("connect",), config.connect)]:
        for key in ("mode", "owner", "group"):
            path = (*place, key)
            if upstream not in (None, UNSET) and isinstance(upstream.listen, TcpAddress) and path in document.lines:
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
    for name, service in entries(config.services):
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


def _check_access(config: Partial, document: Document) -> None:
    """A log that would never have a line was meant otherwise."""
    if config.access is UNSET:
        return
    if config.access.events == ():
        found = "found an empty list"
        document.problem(("access", "events"), f"{found}; allowed: one or more of opened, interval, ended")
    elif config.access.only == "failed" and config.access.events is not UNSET and "ended" not in config.access.events:
        found = "found failed without ended among access.events, and only an end shows a failure"
        document.problem(("access", "only"), f"{found}; allowed: with ended")


def _check_offered(config: Partial, document: Document) -> None:
    offered = {*config.services, *(service for peer in config.peers.values() for service in peer.services)}
    called: list[tuple[Path, str]] = [(("upstreams", name), name) for name, _ in entries(config.upstreams)]
    if config.connect not in (None, UNSET) and isinstance(config.connect.services, tuple):
        called.extend((("connect", "services"), name) for name in config.connect.services)
    for path, name in called:
        if name not in offered:
            near = difflib.get_close_matches(name, offered, n=1)
            hint = f' (did you mean "{near[0]}"?)' if near else ""
            found = f"found no peer and no service of this host that offers {quote(name)}{hint}"
            allowed = ", ".join(sorted(offered)[:20]) or "none so far"
            document.problem(path, f"{found}; allowed: {allowed}")


def _shapes_offers(path: Path) -> bool:
    """Whether a problem at ``path`` may be the reason why a service seems to be offered by nobody."""
    return path == () or path[0] == "services" or (path[0] == "peers" and "address" not in path[2:3])
