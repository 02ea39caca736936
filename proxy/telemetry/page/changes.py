"""Which links flap, of which the proxy keeps no time itself: found by looking every second, whether anybody has the
page open or not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from control.api.messages import PeerStatus

FLAPS, WINDOW = 3, 60.0
"""Links of one peer that were resumed so often in so many seconds flap. A cable that is pulled once is resumed once."""


class Flapping(NamedTuple):
    """How often a peer's sessions have been resumed within WINDOW, and for how many seconds that has been going on."""

    times: int
    seconds: float


class Changes:
    """Args:
    now: seconds, of any clock that goes on evenly.

    Attributes:
        flapping: by peer, where it is FLAPS or more.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._resumed: dict[str, deque[tuple[float, int]]] = {}
        self.flapping: Mapping[str, Flapping] = {}

    def look(self, peers: Iterable[PeerStatus]) -> None:
        """How often each peer's sessions were resumed by now."""
        now, flapping = self._now(), {}
        resumed: dict[str, deque[tuple[float, int]]] = {}
        for peer in peers:
            history = self._resumed.get(peer.name, deque())
            if not history or history[-1][1] != peer.resumed:
                history.append((now, peer.resumed))
            while len(history) > 1 and history[1][0] < now - WINDOW:
                history.popleft()
            resumed[peer.name] = history
            times = history[-1][1] - history[0][1] if history[-1][0] >= now - WINDOW else 0
            if times >= FLAPS:
                flapping[peer.name] = Flapping(times, now - history[1][0])
        self._resumed, self.flapping = resumed, flapping
