"""How much one client may take (sans-IO): connections at a time, and requests a second by a token bucket."""

from __future__ import annotations

__all__ = ["Admission", "Rate"]


class Admission:
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


class Rate:
    """Requests a second for each client, and twice as many at once."""

    KEPT = 10_000
    """Clients that are remembered; those that ask for nothing are forgotten first."""

    def __init__(self, per_second: float) -> None:
        self._rate = per_second
        self._burst = 2 * per_second
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, client: str, now: float) -> bool:
        """Whether `client` may make a request at `now` (seconds of any clock)."""
        left, since = self._buckets.pop(client, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._rate)
        allowed = left >= 1
        # Put back last: the dict is in the order of use.
        self._buckets[client] = (left - 1 if allowed else left, now)
        if len(self._buckets) > self.KEPT:
            del self._buckets[next(iter(self._buckets))]
        return allowed
