"""How much of a turn the links of one peer get.

Frames other than plain DATA cost up to 20 times as much as those. One link handles SLOW_FRAMES of them in a turn, all
links of a peer PEER_FRAMES, and no more of either kind than take PEER_TIME: otherwise a peer could take any share of
the time by having many links (those that are leaving are counted by nobody else), or by frames of a byte each. Links
that have frames left wait in one queue, and take turns.
"""

from __future__ import annotations

from collections import deque

from proxy.core.syscalls import now
from proxy.pump.loop import Pump
from proxy.pump.pace import PEER_FRAMES, PEER_TIME, SLOW_FRAMES
from proxy.pump.watcher import Watcher


class TurnShare:
    """The share of one peer, whose links call it."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        self._turn = -1
        self._left = 0
        self._time_left = self._since = 0.0
        self._queue: deque[Watcher] = deque()
        self._serving = self._others_first = False

    def take(self, link: Watcher, at: float) -> int:
        """How many slow frames the link may handle now, `at` this time; 0: it waits for its turn, which is
        ``link.ready(0)``.
        """
        if self._turn != self._pump.turns:
            self._turn, self._left, self._time_left = self._pump.turns, PEER_FRAMES, PEER_TIME
            self._others_first = bool(self._queue)
        if not self._left or self._time_left <= 0 or (self._others_first and not self._serving):
            self.wait(link)
            return 0
        self._since = at
        return self._left if self._left < SLOW_FRAMES else SLOW_FRAMES

    def more(self) -> bool:
        """Whether the link that has taken its share last may go on."""
        return self.clock() - self._since < self._time_left

    def clock(self) -> float:
        """Seconds; tests have one of their own."""
        return now()

    def took(self, frames: int) -> None:
        """That link has handled so many slow frames, and is done for now; one that ends, more than it may."""
        self._left = max(0, self._left - frames)
        self._time_left -= self.clock() - self._since

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
