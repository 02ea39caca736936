"""How much of a turn the links of one peer get.

Frames other than plain DATA cost up to 20 times as much as those. One link handles SLOW_FRAMES of them in a turn, all
links of a peer PEER_FRAMES, and no more of either kind than take PEER_TIME: otherwise a peer could take any share of
the time by having many links (those that are leaving are counted by nobody else), or by frames of a byte each. Links
that have frames left wait in one queue, and take turns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import perf_counter

from proxy.pump.loop import Pump, Watcher

SLOW_FRAMES = 16
"""Frames other than plain DATA that one link handles in a turn. Opening a stream costs as much as 20 messages. The rest
waits for the next turn, so that the answers to these go out first (docs/performance.md)."""
PEER_FRAMES = 2 * SLOW_FRAMES
"""The same for all links of a peer."""
PEER_TIME = 0.005
"""Seconds of a turn for all links of a peer; who begins a `turn.SLICE` within it finishes that. A turn's worth of
honest frames takes less, also where a service on the same core interrupts it: with 1 ms, a bulk stream beside small
messages had a third less of everything (benchmarks, `mixed`)."""


class TurnShare:
    """The share of one peer, whose links call it."""

    def __init__(self, pump: Pump, clock: Callable[[], float] = perf_counter) -> None:
        self._pump, self._clock = pump, clock
        self._turn = -1
        self._left = 0
        self._time_left = self._since = 0.0
        self._queue: deque[Watcher] = deque()
        self._serving = self._others_first = False

    def take(self, link: Watcher) -> int:
        """How many slow frames the link may handle now; 0: it waits for its turn, which is ``link.ready(0)``."""
        if self._turn != self._pump.turns:
            self._turn, self._left, self._time_left = self._pump.turns, PEER_FRAMES, PEER_TIME
            self._others_first = bool(self._queue)
        if not self._left or self._time_left <= 0 or (self._others_first and not self._serving):
            self.wait(link)
            return 0
        self._since = self._clock()
        return self._left if self._left < SLOW_FRAMES else SLOW_FRAMES

    def more(self) -> bool:
        """Whether the link that has taken its share last may go on."""
        return self._clock() - self._since < self._time_left

    def took(self, frames: int) -> None:
        """That link has handled so many slow frames, and is done for now; one that ends, more than it may."""
        self._left = max(0, self._left - frames)
        self._time_left -= self._clock() - self._since

    def wait(self, link: Watcher) -> None:
        """Call ``link.ready(0)`` in the next turn, behind the links that wait already."""
        if not self._queue and not self._serving:
            self._pump.again(self)
        self._queue.append(link)

    def ready(self, mask: int) -> None:
        """Links that wait get their turns, as far as the share goes (`Watcher`)."""
        self._serving = True
        for _ in range(len(self._queue)):
            link = self._queue.popleft()
            try:
                link.ready(0)
            except Exception:
                self._pump.failed(link)
            if not self._left or self._time_left <= 0:
                break
        self._serving = False
        if self._queue:
            self._pump.again(self)

    def crashed(self) -> None:
        """Never called: `ready` handles what a link raises (`Watcher`)."""

    def abandoned(self) -> None:
        """Never called: no descriptor is registered for it (`Watcher`)."""
