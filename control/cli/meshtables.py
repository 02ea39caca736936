"""The mesh, as the control plane or a proxy knows it, as tables for people."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from rich.table import Table

from control.api.mesh import CaStatus, MapSnapshot, TokenInfo
from control.api.messages import Status
from control.cli.tables import span, table_of

SHOWN = 8
"""Names in one cell; a host with a hundred services takes one row, not a screen."""


def hosts_table(found: MapSnapshot) -> Table:
    """One row a host of the map."""
    rows = [
        (host.name, host.address, host.segment or "-", host.version or "-", str(len(host.services)),
         listed(offer.name for offer in host.services))
        for host in found.hosts
    ]  # fmt: skip
    return table_of(["host", "address", "segment", "version", "services>", "offers"], rows)


def services_table(found: MapSnapshot) -> Table:
    """One row a service of the map."""
    offered: dict[str, list[str]] = {}
    for host in found.hosts:
        for offer in host.services:
            offered.setdefault(offer.name, []).append(host.name)
    rows = [(name, str(len(hosts)), listed(hosts)) for name, hosts in sorted(offered.items())]
    return table_of(["service", "hosts>", "offered by"], rows)


def peers_table(status: Status) -> Table:
    """One row a host that a proxy knows."""
    rows = [(peer.name, peer.address, peer.state, str(peer.links), str(peer.streams)) for peer in status.peers]
    own = (status.host, "this host", "-", "-", "-")
    return table_of(["host", "address", "state", "links>", "streams>"], sorted([own, *rows]))


def known_services_table(status: Status) -> Table:
    """One row a service that a proxy calls or offers."""
    offered = {upstream.service: list(upstream.offered_by) for upstream in status.upstreams}
    for service in status.services:
        hosts = offered.setdefault(service.name, [])
        if status.host not in hosts:
            hosts.append(status.host)
    rows = [(name, str(len(hosts)), listed(sorted(hosts))) for name, hosts in sorted(offered.items())]
    return table_of(["service", "hosts>", "offered by"], rows)


def tokens_table(found: Sequence[TokenInfo]) -> Table:
    """One row a token."""
    now = time.time()
    rows = [(token.id, token.host, span(max(0.0, token.expires - now))) for token in found]
    return table_of(["token", "host", "good for>"], rows)


def ca_table(found: CaStatus) -> Table:
    """One row a CA."""
    now = time.time()
    rows = [
        (root.id, _yes(root.issues), _yes(root.key_here), span(max(0.0, root.not_after - now)), str(root.certificates),
         span(max(0.0, root.in_use_until - now)) if root.in_use_until else "-",
         listed(root.hosts))
        for root in found.roots
    ]  # fmt: skip
    return table_of(
        ["CA", "issues", "key here", "valid for>", "certificates>", "in use for>", "newest certificate of"], rows
    )


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


def listed(names: Iterable[str]) -> str:
    """Names in one cell: the first ones, and how many more there are."""
    found = list(names)
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(found[:SHOWN]) + more or "-"
