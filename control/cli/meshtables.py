"""The mesh, as the control plane or a proxy knows it, as tables for people."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import compress

from control.api.mesh import CaStatus, TokenInfo
from control.api.messages import MeshHost, MeshService
from control.base.grid import Grid, grid
from control.cli.tables import span

STATES = {"here": "this host"}
"""States that people know by another name."""
SHOWN = 8
"""Names in one cell; a host with a hundred services takes one row, not a screen."""


def hosts_table(found: Sequence[MeshHost]) -> Grid:
    """One row a host, with the columns of which whoever answered knows something."""
    columns = ["host", "address", "state", "links>", "streams>", "segment", "version", "services>", "offers"]
    cells = [
        (host.name, host.address, STATES.get(host.state or "", host.state or ""), _number(host.links),
         _number(host.streams), host.segment or "", host.version, str(len(host.services)), listed(host.services))
        for host in found
    ]  # fmt: skip
    known = [any(row[position] for row in cells) or not cells for position in range(len(columns))]
    rows = [[cell or "-" for cell, kept in zip(row, known, strict=True) if kept] for row in cells]
    least = ["segment", "version", "streams", "links", "services"]
    return grid(list(compress(columns, known)), rows, least, words="offers")


def services_table(found: Sequence[MeshService]) -> Grid:
    """One row a service; a control server does not know where this host's containers call it."""
    rows = [
        (each.service, str(len(each.offered_by)), listed(sorted(each.offered_by)), each.listen or "-") for each in found
    ]
    if any(each.listen for each in found):
        columns = ["service", "hosts>", "offered by", "called through"]
        return grid(columns, rows, ["called through"], words="offered by")
    return grid(["service", "hosts>", "offered by"], [row[:3] for row in rows], words="offered by")


def tokens_table(found: Sequence[TokenInfo]) -> Grid:
    """One row a token."""
    now = time.time()
    rows = [(token.id, token.host, span(max(0.0, token.expires - now))) for token in found]
    return grid(["token", "host", "good for>"], rows, words="host")


def ca_table(found: CaStatus) -> Grid:
    """One row a CA."""
    now = time.time()
    rows = [
        (root.id, _yes(root.issues), _yes(root.key_here), span(max(0.0, root.not_after - now)), str(root.certificates),
         span(max(0.0, root.in_use_until - now)) if root.in_use_until else "-",
         listed(root.hosts))
        for root in found.roots
    ]  # fmt: skip
    least = ["key here", "valid for", "in use for"]
    return grid(
        ["CA", "issues", "key here", "valid for>", "certificates>", "in use for>", "newest certificate of"],
        rows, least, words="newest certificate of",
    )  # fmt: skip


def _number(found: int | None) -> str:
    return "" if found is None else str(found)


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


def listed(names: Iterable[str]) -> str:
    """Names in one cell: the first ones, and how many more there are."""
    found = list(names)
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(found[:SHOWN]) + more or "-"
