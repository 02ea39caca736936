"""How many connections one client may have at a time, and all together (sans-IO).

A client is an address until it has shown who it is, and from then on a host: any number of hosts may be behind one
address (NAT), and none of them takes the others' places.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["ConnectionLimiter"]


class ConnectionLimiter:
    """Counts connections, all together and by client: an address, or whatever else names it.

    Attributes:
        total: open now.
        turned_away: since the start.
    """

    def __init__(self, total: int, per_client: int) -> None:
        self._most, self._most_per_client = total, per_client
        self._clients: dict[str, int] = {}
        self.total = 0
        self.turned_away = 0

    def enter(self, client: str) -> bool:
        """Whether `client` may have one more connection; if so, `leave` follows."""
        if self.total >= self._most or self._clients.get(client, 0) >= self._most_per_client:
            self.turned_away += 1
            return False
        self.total += 1
        self._clients[client] = self._clients.get(client, 0) + 1
        return True

    @property
    def full(self) -> bool:
        """Whether nobody may have one more."""
        return self.total >= self._most

    @contextmanager
    def known_as(self, client: str, name: str) -> Iterator[bool]:
        """As long as the block lasts, a connection of `client` counts as one of `name`, if that may have one more:
        whether it may. It is `client`'s again afterwards.
        """
        allowed = self._clients.get(name, 0) < self._most_per_client
        if not allowed:
            self.turned_away += 1
            yield False
            return
        self._move(client, name)
        try:
            yield True
        finally:
            self._move(name, client)

    def _move(self, before: str, after: str) -> None:
        self._clients[after] = self._clients.get(after, 0) + 1
        self._drop(before)

    def leave(self, client: str) -> None:
        """A connection that had entered has ended."""
        self.total -= 1
        self._drop(client)

    def _drop(self, client: str) -> None:
        self._clients[client] -= 1
        if not self._clients[client]:
            del self._clients[client]
