"""In which order the hosts that offer a service are tried (sans-IO)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar


class Endpoint(Protocol):
    """What the choice needs to know of a peer's pool."""

    @property
    def streams(self) -> int:
        """Streams on its links."""

    @property
    def up(self) -> bool:
        """Whether a link is up."""


E = TypeVar("E", bound=Endpoint)


def order(endpoints: Iterable[E]) -> list[E]:
    """Peers that can be reached now come first, among them the one with the fewest streams."""
    return sorted(endpoints, key=lambda endpoint: (not endpoint.up, endpoint.streams))
