"""Everything that an explanation needs, read and measured from here. Blocks for about a second."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import suppress

from control.api.messages import LinkInfo, PeerStatus, Status, UpstreamStatus
from control.base.reading.addresses import TcpAddress
from proxy.check.readers.linksockets import connections
from proxy.check.readers.namespaces import elsewhere, enter, label
from proxy.check.readers.runningproxy import running
from proxy.check.report import Unchecked
from proxy.errors import NetError
from proxy.explain.account import ExplanationFacts, PathLayer, UnixHop, chosen
from proxy.explain.measure import echo_ms, unix_hop
from proxy.explain.walk import walk
from proxy.links.rtnetlink import host_network


def gather(
    admin_socket: str, status: Status, links: list[LinkInfo], upstream: UpstreamStatus, to: str | None, pid: int | None
) -> ExplanationFacts:
    """What the walks and measurements say.

    Raises NetError when a namespace cannot be entered, or ``to`` or the peer's name does not resolve.

    Args:
        to: where the service would be called directly; None: where the peer's proxy is.
        pid: whose direct way it is; None: this process's.
    """
    hop = _unix_hop(admin_socket, upstream)
    peer = chosen(status, upstream)
    if peer is None:
        return ExplanationFacts(status=status, upstream=upstream, unix=hop)
    target = _resolved(to if to is not None else _host(peer))
    with_peer = tuple(link for link in links if link.peer == peer.name)
    layers, round_trip = _look(target, pid)
    carried, carried_ms = _carried(admin_socket, _resolved(_host(peer)), with_peer)
    return ExplanationFacts(
        status=status,
        upstream=upstream,
        unix=hop,
        peer=peer,
        links=with_peer,
        direct_to=target,
        direct_from="here" if pid is None else label(pid),
        direct=layers,
        direct_ms=round_trip,
        carried=carried,
        carried_ms=carried_ms,
    )


def _unix_hop(admin_socket: str, upstream: UpstreamStatus) -> UnixHop | Unchecked:
    """Measured in the directory of the upstream's socket, or for a TCP upstream in that of the admin socket."""
    path = upstream.listen.removeprefix("unix:")
    return unix_hop(os.path.dirname(path if path.startswith("/") else os.path.abspath(admin_socket)))


def _look(target: str, pid: int | None) -> tuple[tuple[PathLayer, ...], float | Unchecked]:
    if pid is None:
        return walk(target), echo_ms(target)
    return enter(pid, lambda: (walk(target), echo_ms(target)))


def _carried(
    admin_socket: str, address: str, links: Sequence[LinkInfo]
) -> tuple[tuple[PathLayer, ...], float | Unchecked]:
    """The layers under the link and the round trip of the kernels there, from the namespace that the proxy is in."""
    local = links[0].local if links else None

    def look() -> tuple[tuple[PathLayer, ...], float | Unchecked]:
        device = _bound(local)
        return walk(address, source=_ip(local), device=device), echo_ms(address, device)

    pid = running(admin_socket)
    if not pid or not elsewhere(pid):
        return look()
    try:
        return enter(pid, look)
    except NetError as error:
        layer = PathLayer(name="interface", read=str(error), where=label(pid), seen=False)
        return (layer,), Unchecked(f"the round trip to {address}", str(error))


def _bound(local: str | None) -> str:
    """The interface that the socket of the link with this local ``ADDRESS:PORT`` is bound to; empty: to none."""
    with suppress(OSError):
        interfaces = host_network().interfaces
        for found in connections():
            if local == TcpAddress(found.local, found.local_port).hostport and found.bound in interfaces:
                return interfaces[found.bound].name
    return ""


def _ip(local: str | None) -> str | None:
    return local.rpartition(":")[0].strip("[]") if local else None


def _host(peer: PeerStatus) -> str:
    return peer.address.rpartition(":")[0].strip("[]")


def _resolved(name: str) -> str:
    try:
        return str(socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise NetError(f"{name} does not resolve: {(error.strerror or str(error)).lower()}") from None
    except UnicodeError:
        raise NetError(f"{name} does not resolve: it is no name of a host") from None
