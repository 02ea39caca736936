"""How many connections one client may have at a time, and all together (sans-IO).

A client is an address until it has shown who it is, and from then on a host: any number of hosts may be behind one
address (NAT), and none of them takes the others' places.
"""

from __future__ import annotations

__all__ = ["ConnectionLimiter", "OpenConnection"]


class OpenConnection:
    """A connection that was let in, by `ConnectionLimiter.enter`; `leave` follows.

    Attributes:
        client: whom it counts for.
    """

    def __init__(self, limiter: ConnectionLimiter, client: str) -> None:
        self._limiter, self.client = limiter, client

    def known_as(self, client: str) -> bool:
        """Whether the connection may be one of `client`, as which it counts to its end then. If not, it counts for whom
        it did before.
        """
        if not self._limiter.pass_on(self.client, client):
            return False
        self.client = client
        return True

    def leave(self) -> None:
        """It has ended."""
        self._limiter.leave(self.client)


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

    def enter(self, client: str) -> OpenConnection | None:
        """One more connection of `client`; None: it may have none."""
        if self.total >= self._most or not self._take(client):
            self.turned_away += 1
            return None
        self.total += 1
        return OpenConnection(self, client)

    @property
    def full(self) -> bool:
        """Whether nobody may have one more."""
        return self.total >= self._most

    def pass_on(self, before: str, after: str) -> bool:
        """Whether a connection of the one client may be one of the other, and is."""
        if not self._take(after):
            self.turned_away += 1
            return False
        self._drop(before)
        return True

    def leave(self, client: str) -> None:
        """A connection of `client` has ended."""
        self.total -= 1
        self._drop(client)

    def _take(self, client: str) -> bool:
        count = self._clients.get(client, 0)
        if count >= self._most_per_client:
            return False
        self._clients[client] = count + 1
        return True

    def _drop(self, client: str) -> None:
        self._clients[client] -= 1
        if not self._clients[client]:
            del self._clients[client]
