"""How many calls of an upstream may be under way to peers without an answer (sans-IO).

Nothing else bounds OPENs: they need no credit, stand in the link before everybody's messages, and each costs both hosts
as much as 20 of those. So each upstream has a *window*, as TCP has one for what is not acknowledged; callers beyond it
wait in the upstream's own backlog. Its size follows what they do (additive increase, multiplicative decrease, as
RFC 5681's congestion window): a call that is answered while its caller still has something to say adds one place; a
caller that has finished before the answer halves it. Whoever does not wait for answers, as a container that connects
and closes in a storm, loses nothing by waiting its turn.

All upstreams together share ALL: a dynamic threshold, as `descriptorshares` has it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

LEAST, MOST = 2, 64
"""Calls, between which a window is. More than MOST bring nothing: the peer works on them one by one."""
ALL = 2 * MOST
"""Calls of all upstreams; above LEAST, one has no more than as many as are left for others."""
TURNS = 4
"""Turns of the loop, at least, that filling a window takes: many new calls in one delay the messages of open ones."""


class Asked(Protocol):
    """What carries calls (`session.LaneSession`)."""

    def ask(self, told: Callable[[], None]) -> None:
        """Call `told` when the peer has handled all that was written until now, or the link is lost."""


class Opening(Protocol):
    """A call (`lane.Lane`).

    Attributes:
        eof: whether its caller has finished.
    """

    @property
    def session(self) -> Asked:
        """What carries it."""

    eof: bool


class OpeningWindow:
    """The window of one upstream.

    Attributes:
        size: calls that may be under way.
        calls: those that are, as far as is known.
    """

    def __init__(self, all_windows: OpeningWindows) -> None:
        self.size = MOST
        self.calls: set[Opening] = set()
        self._all = all_windows
        self._waiting: list[Callable[[], None]] = []
        self._asked: set[Asked] = set()

    @property
    def full(self) -> bool:
        """Whether one more call has to wait."""
        count = len(self.calls)
        return count >= self.size or (count >= LEAST and count + self._all.count >= ALL)

    @property
    def burst(self) -> int:
        """Calls to take in one turn of the loop."""
        return max(1, self.size // TURNS)

    def when_room(self, told: Callable[[], None]) -> None:
        """Call `told`, once, when half of the window is free: not for each call, as that costs system calls.

        The peers are asked, too: a service may take long to accept calls that are in nobody's way any more.
        """
        self._waiting.append(told)
        for session in {call.session for call in self.calls} - self._asked:
            self._asked.add(session)
            session.ask(partial(self._handled, session, [call for call in self.calls if call.session is session]))

    def _handled(self, session: Asked, calls: list[Opening]) -> None:
        self._asked.remove(session)
        for call in calls:
            self.drop(call)

    def add(self, call: Opening) -> None:
        """An OPEN has been written for the call."""
        self.calls.add(call)
        self._all.count += 1

    def answered(self, call: Opening) -> None:
        """The peer has delivered the call."""
        self.adapt(not call.eof)
        self.drop(call)

    def adapt(self, waited: bool) -> None:
        """A caller has waited for what its call would bring, or has finished before."""
        if not waited:
            self.size = max(LEAST, self.size // 2)
        elif self.size < MOST:
            self.size += 1

    def drop(self, call: Opening) -> None:
        """The call is in nobody's way any more. Idempotent."""
        if call in self.calls:
            self.calls.remove(call)
            self._all.count -= 1
            if self._waiting and len(self.calls) <= self.size // 2 and not self.full:
                waiting, self._waiting = self._waiting, []
                for told in waiting:
                    told()


class OpeningWindows:
    """Those of all upstreams.

    Attributes:
        count: calls that are under way.
    """

    def __init__(self) -> None:
        self.count = 0
        self._windows: dict[str, OpeningWindow] = {}

    def of(self, upstream: str) -> OpeningWindow:
        """The window of the upstream of this name."""
        found = self._windows.get(upstream)
        if found is None:
            found = self._windows[upstream] = OpeningWindow(self)
        return found

    def keep(self, upstreams: set[str]) -> None:
        """Forget the windows of all others."""
        self._windows = {name: window for name, window in self._windows.items() if name in upstreams}

    def link_lost(self, session: Asked) -> None:
        """Its calls wait for another link, where they are in nobody's way."""
        for window in self._windows.values():
            for call in [call for call in window.calls if call.session is session]:
                window.drop(call)
