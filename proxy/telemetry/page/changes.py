"""Since when things are as they are, of which the proxy keeps no time itself: found by looking every second, whether
anybody has the page open or not. A look costs microseconds for each peer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping

import trio

from control.api.messages import PeerStatus
from proxy.telemetry.page.problems import Found

EVERY = 1.0
"""Seconds between two looks."""
FLAPS, WINDOW = 3, 60.0
"""Links of one peer that were resumed so often in so many seconds flap. A cable that is pulled once is resumed once."""


class Changes:
    """Args:
    now: seconds since 1970.

    Attributes:
        flapping: by peer, how often its sessions have been resumed within WINDOW, where that is FLAPS or more.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._since: dict[tuple[str, str], float] = {}
        self._resumed: dict[str, deque[tuple[float, int]]] = {}
        self.flapping: Mapping[str, int] = {}

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
                flapping[peer.name] = times
        self._resumed, self.flapping = resumed, flapping

    def since(self, problems: Iterable[Found]) -> list[float]:
        """For each problem, when it began: seconds since 1970. What is not among them any more is over."""
        now, since = self._now(), {}
        for each in problems:
            first = now if each.since is None else now - each.since
            since[each.key] = min(first, self._since.get(each.key, first))
        self._since = since
        return [since[each.key] for each in problems]


async def run(look: Callable[[], None]) -> None:
    """Look every EVERY seconds, until cancelled."""
    while True:
        look()
        await trio.sleep(EVERY)
