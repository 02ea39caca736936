"""How many calls of an upstream may be under way to peers without an answer (sans-IO).

Nothing else bounds OPENs: they need no credit, stand in the link before everybody's messages, and each costs both hosts
as much as 20 of those. So each upstream has a *window*, as TCP has one for what is not acknowledged; callers beyond it
wait in the upstream's own backlog. Its size follows what they do (additive increase, multiplicative decrease, as
RFC 5681's congestion window): a call that is answered while its caller still waits adds one place; a caller that has
left before the answer halves it. (Who has only ended what it says has not left: over TCP what comes back when the
answer is sent tells them apart.) Whoever does not wait for answers, as a container that connects and closes in a storm,
loses nothing by waiting its turn.

On a long way more calls are under way at the same rate, and they stand before nobody while they travel: a size is that
of a window for each millisecond of the shortest round trip.

All upstreams together share ALL at each peer: a dynamic threshold, as `descriptorshares` has it. So a peer that is
silent holds up only who calls it.

Every call leaves its window in the end: with the answer, with its link, or, when its caller has left, with the peer's
word (`opening.Asked.ask`) that it is in nobody's way any more.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from proxy.errors import CloseReason
from proxy.pump.opening import Asked, Opening

LEAST, MOST = 2, 128
"""Calls, between which a window's size is. More than MOST bring nothing: the peer works on them one by one. (With 64, a
crowd of 128 callers came to their turn a sixth more slowly: to hold them up costs, too.)"""
ALL = 2 * MOST
"""Calls of all upstreams at one peer; above LEAST, one has no more than as many as are left for others."""
TURNS = 8
"""Turns of the loop, at least, that filling a window takes: many new calls in one delay the messages of open ones."""


class UnderWay:
    """The calls without an answer that one session carries, of all upstreams.

    Attributes:
        count: how many there are.
    """

    def __init__(self, session: Asked) -> None:
        self.session = session
        self.count = 0


class OpeningWindow:
    """The window of one upstream.

    Attributes:
        size: calls that may be under way, for each millisecond of the way.
        calls: those that are, as far as is known, and where.
        doubted: answered calls whose callers may have left before: `ended` follows for each.
    """

    def __init__(self) -> None:
        self.size = MOST
        self.calls: dict[Opening, UnderWay] = {}
        self.doubted: set[Opening] = set()
        self._last: UnderWay | None = None
        self._over: set[Opening] = set()
        self._waiting: list[Callable[[], None]] = []
        self._asked: set[Asked] = set()

    @property
    def full(self) -> bool:
        """Whether one more call has to wait. It is expected to go the way of the last one."""
        return self.is_full()

    def is_full(self) -> bool:
        """As `full`, which is not compiled to a plain call."""
        count, last = len(self.calls), self._last
        if count < LEAST or last is None:
            return False
        if count < self.size and count + last.count < ALL:  # however short the way
            return False
        way = last.session.way
        return count >= self.size * way or count + last.count >= ALL * way

    @property
    def burst(self) -> int:
        """Calls to take in one turn of the loop."""
        return max(1, self.size // TURNS)

    def when_room(self, told: Callable[[], None]) -> None:
        """Call `told`, once, when half of the window is free: not for each call, as that costs system calls.

        The peers are asked, too: a service may take long to accept calls that are in nobody's way any more.
        """
        self._waiting.append(told)
        self._ask({where.session for where in self.calls.values()})

    def _ask(self, sessions: set[Asked]) -> None:
        for session in sessions:
            if session not in self._asked:
                self._asked.add(session)
                session.ask(partial(self._handled, session, self.carried_by(session)))

    def carried_by(self, session: Asked) -> list[Opening]:
        """Those of the calls that are under way there."""
        return [call for call, where in self.calls.items() if where.session is session]

    def _handled(self, session: Asked, calls: list[Opening]) -> None:
        self._asked.remove(session)
        for call in calls:
            self.drop(call)
        # There may be calls that have come since, also by other ways than the one who waits (`Call`).
        self._ask({self.calls[call].session for call in (self.calls if self._waiting else self._over)})

    def add(self, call: Opening, where: UnderWay) -> None:
        """An OPEN has been written for the call."""
        self.calls[call] = self._last = where
        where.count += 1

    def answered(self, call: Opening) -> None:
        """The peer has delivered the call."""
        left = call.left
        if left is None:
            self.doubted.add(call)
        else:
            self.adapt(not left)
        self.drop(call)

    def ended(self, call: Opening, reason: CloseReason) -> None:
        """A stream has ended. If it was in doubt whether its caller waits: it did, if it was told something, and was
        still there then. A stream that nobody at its ends has ended says nothing.
        """
        if call in self.doubted:
            self.doubted.remove(call)
            if reason in (CloseReason.FINISHED, CloseReason.ABORTED):
                self.adapt(reason is CloseReason.FINISHED and call.bytes_received > 0 and not call.left)

    def over(self, call: Opening) -> None:
        """The call has ended without an answer: none will come. It stands in the way until the peer has handled it."""
        if call in self.calls:
            self._over.add(call)
            self._ask({self.calls[call].session})

    def adapt(self, waited: bool) -> None:
        """A caller has waited for what its call would bring, or has left before."""
        if not waited:
            self.size = max(LEAST, self.size // 2)
        elif self.size < MOST:
            self.size += 1

    def drop(self, call: Opening) -> None:
        """The call is in nobody's way any more. Idempotent."""
        where = self.calls.pop(call, None)
        if where is None:
            return
        where.count -= 1
        if self._over:
            self._over.discard(call)
        if self._waiting and not self.is_full() and len(self.calls) <= self.size * where.session.way // 2:
            waiting, self._waiting = self._waiting, []
            for told in waiting:
                told()


class OpeningWindows:
    """Those of all upstreams."""

    def __init__(self) -> None:
        self._windows: dict[str, OpeningWindow] = {}

    def of(self, upstream: str) -> OpeningWindow:
        """The window of the upstream of this name."""
        found = self._windows.get(upstream)
        if found is None:
            found = self._windows[upstream] = OpeningWindow()
        return found

    def keep(self, upstreams: set[str]) -> None:
        """Forget the windows of all others, but for those that calls have not left yet."""
        self._windows = {name: window for name, window in self._windows.items() if name in upstreams or window.calls}

    def link_lost(self, session: Asked) -> None:
        """Its calls wait for another link, where they are in nobody's way."""
        for window in self._windows.values():
            for call in window.carried_by(session):
                window.drop(call)
