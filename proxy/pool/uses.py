"""The uses of one peer, as its streams tell them: additions, and nothing that is learnt (sans-IO).

Of the gaps between uses, those below FLOOR are all alike, since no link is closed so soon. They are only counted here,
and `proxy.pool.history` learns them together.
"""

from __future__ import annotations

from math import inf

FLOOR = 0.25
"""Seconds."""


class GapCounter:
    """Counts a peer's short gaps.

    Attributes:
        idle_since: when the latest use ended; -inf: there was none.
        countable: how many more short gaps are only counted, before `gap` is called for one.
    """

    __slots__ = ("countable", "idle_since")

    def __init__(self) -> None:
        self.idle_since, self.countable = -inf, 0

    def begin(self, now: float) -> None:
        """The peer comes into use at `now` (seconds of any clock that does not go back)."""
        if self.countable and now - self.idle_since < FLOOR:
            self.countable -= 1
        else:
            self.gap(now)

    def end(self, now: float) -> None:
        """The peer is in use no more."""
        self.idle_since = now

    def gap(self, now: float) -> None:
        """A gap that ends at `now` is more than a number."""
        raise NotImplementedError


class Uses:
    """Counts uses over all sessions to a peer, and what links its streams have found.

    Attributes:
        busy: sessions that have streams, whichever side opened them.
        avoided: handshakes avoided: streams that this host opened, less the handshakes that one of them waited for.
        warm: streams that this host opened and that found a link.
        counted: services that have proved heavy and whose streams are counted, to find out whether they still are. Only
            calls of these take the long way to a link (`Picker.pick`).
    """

    def __init__(self, history: GapCounter) -> None:
        self.history = history
        self.busy = self.avoided = self.warm = 0
        self.counted: set[str] = set()

    def began(self, now: float) -> None:
        """A session without streams is about to have one (`now`: seconds of a clock that does not go back)."""
        self.busy += 1
        if self.busy == 1:
            self.history.begin(now)

    def ended(self, now: float) -> None:
        """A session's last stream has ended."""
        self.busy -= 1
        if not self.busy:
            self.history.end(now)
