"""What has changed on a map, in words for a log (sans-IO): services that appeared or went, host by host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from control.api.mesh import HostRecord

__all__ = ["MapNews", "changes", "services_of"]

SHOWN = 10
"""Services that one line names; with the longest names that is 640 bytes."""


class MapNews(NamedTuple):
    """An event, and its fields. `kind`, one of them, tells it from others for summaries (`control.base.repeats`). It is
    the host: what flaps there is a line when it begins, and then one a minute, whatever it is.
    """

    event: str
    fields: dict[str, Any]


def changes(before: HostRecord | None, now: HostRecord | None) -> Iterator[MapNews]:
    """What the host has come to offer, and what it offers no longer. None: it is not on the map."""
    old, new = _services(before), _services(now)
    for event, names in (("services offered", new - old), ("services gone", old - new)):
        if names:
            host = (now or before).name  # type: ignore[union-attr]
            shown = sorted(names)[:SHOWN]
            yield MapNews(event, {"kind": (host,), "host": host, "services": shown, "count": len(names)})


def services_of(before: Mapping[str, HostRecord], now: Mapping[str, HostRecord]) -> Iterator[MapNews]:
    """`changes` of all hosts of a map."""
    for name in before.keys() | now.keys():
        old, new = before.get(name), now.get(name)
        if old is not new:
            yield from changes(old, new)


def _services(record: HostRecord | None) -> set[str]:
    return set() if record is None else {offer.name for offer in record.services}
