"""What pages in the browser are told (docs/page.md): by a proxy, and by a control server. The page itself is
`control.base.page`; each is served with what it shows, so nothing here need be the same in another version.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self
from urllib.parse import parse_qs

from msgspec import Struct

from control.api.messages import EdgeInfo

__all__ = ["MOST_PAGE_ROWS", "PageProblem", "Wanted"]

MOST_PAGE_ROWS = 1000
"""Rows of a table that are sent, the busiest; who searches gets others."""


class PageProblem(Struct, frozen=True, kw_only=True):
    """What is broken, where, and since when (seconds since 1970). ``told_by``: the hosts that say so, where a control
    server shows it."""

    kind: str
    name: str
    text: str
    since: float
    told_by: tuple[str, ...] = ()


class Wanted(Struct, frozen=True, kw_only=True):
    """What somebody looks for: a text in any of an edge's names, and whole names. None: any."""

    search: str = ""
    caller_host: str | None = None
    service: str | None = None
    host: str | None = None

    @classmethod
    def of(cls, query: str) -> Self:
        """What stands behind the ``?``: ``search=redis&host=host-b``; what is not known there is let be."""
        found = {name: values[-1] for name, values in parse_qs(query).items() if name in cls.__struct_fields__}
        return cls(**{**found, "search": found.get("search", "").strip().lower()})

    def edges(self, edges: Iterable[EdgeInfo]) -> list[EdgeInfo]:
        """Those that are looked for."""
        return [edge for edge in edges if self._is(edge)] if self != type(self)() else list(edges)

    def has(self, *names: str) -> bool:
        """Whether one of the names contains the text."""
        return not self.search or any(self.search in name.lower() for name in names)

    def _is(self, edge: EdgeInfo) -> bool:
        host = edge.host or NOWHERE
        return (
            self.caller_host in (None, edge.caller_host)
            and self.service in (None, edge.service)
            and self.host in (None, host)
            and self.has(edge.caller, edge.caller_host, edge.service, host)
        )


NOWHERE = "no host"
"""What the page has for the host of streams that none has taken."""
