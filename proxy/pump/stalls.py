"""How long a stream could not go on, by cause: the peer's application does not read (no *credit*), the *link* takes no
more, or the *reader*, this host's application, does not. Nothing is counted of streams that never have to stop.
"""

from __future__ import annotations

from typing import NamedTuple


class StallSeconds(NamedTuple):
    """Seconds by cause."""

    credit: float
    link: float
    reader: float


class Stalls:
    """Of one stream, both directions. Times are seconds (monotonic)."""

    __slots__ = ("_by_link", "_credit", "_delivering_since", "_link", "_reader", "_sending_since", "_taken")

    def __init__(self) -> None:
        self._credit = self._link = self._reader = 0.0
        self._sending_since = self._delivering_since = -1.0
        self._by_link = False
        self._taken = StallSeconds(0.0, 0.0, 0.0)

    def from_sending(self, by_link: bool, now: float) -> None:
        """From now on nothing is read of the local socket: `by_link`, or else for want of credit."""
        self.sending(now)
        self._by_link, self._sending_since = by_link, now

    def sending(self, now: float) -> None:
        """It is read again, or still."""
        if self._sending_since >= 0:
            if self._by_link:
                self._link += now - self._sending_since
            else:
                self._credit += now - self._sending_since
            self._sending_since = -1.0

    def from_delivering(self, now: float) -> None:
        """From now on bytes wait for the local socket."""
        self.delivering(now)
        self._delivering_since = now

    def delivering(self, now: float) -> None:
        """None wait any more, or did."""
        if self._delivering_since >= 0:
            self._reader += now - self._delivering_since
            self._delivering_since = -1.0

    def so_far(self, now: float) -> StallSeconds:
        """All of them, those included that it has been held back by now."""
        sending = now - self._sending_since if self._sending_since >= 0 else 0.0
        delivering = now - self._delivering_since if self._delivering_since >= 0 else 0.0
        return StallSeconds(
            self._credit + (0.0 if self._by_link else sending),
            self._link + (sending if self._by_link else 0.0),
            self._reader + delivering,
        )

    def held(self, now: float) -> tuple[str, float] | None:
        """What holds it back now, for the longest, and since how many seconds; None: nothing does."""
        cause, since = "link" if self._by_link else "credit", self._sending_since
        if self._delivering_since >= 0 and not 0 <= since <= self._delivering_since:
            cause, since = "reader", self._delivering_since
        return None if since < 0 else (cause, now - since)

    def take(self, now: float) -> StallSeconds:
        """Those since the last call."""
        taken, self._taken = self._taken, self.so_far(now)
        return StallSeconds(*(found - before for found, before in zip(self._taken, taken, strict=True)))
