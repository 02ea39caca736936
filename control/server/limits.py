"""How many connections one client may have at a time, and all together (sans-IO)."""

from __future__ import annotations

__all__ = ["ConnectionLimiter"]


class ConnectionLimiter:
    """Counts connections, all together and by client.

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

    def leave(self, client: str) -> None:
        """A connection that had entered has ended."""
        self.total -= 1
        self._clients[client] -= 1
        if not self._clients[client]:
            del self._clients[client]
