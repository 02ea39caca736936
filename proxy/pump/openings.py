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
from proxy.pump.opening import ALL, LEAST, MOST, TURNS, Asked, Opening


class UnderWay:
    """The calls without an answer that one session carries, of all upstreams.

    Attributes:
        count: how many there are.
    """

    def __init__(self, session: Asked) -> None:
        self.session = session
        self.count = 0


class Batch:
    """Those of them that are of one window, and of which the peer is asked together. So nobody need keep a list: a call
    only knows which batch it is of.

    Attributes:
        count: how many have not left yet.
        closed: whether calls that come now are of another batch, as the peer was asked, or the link is lost.
        over: whether one of them has ended without an answer.
    """

    def __init__(self, window: OpeningWindow, where: UnderWay) -> None:
        self.window, self.where = window, where
        self.count = 0
        self.closed = self.over = False


class OpeningWindow:
    """The window of one upstream.

    Attributes:
        size: calls that may be under way, for each millisecond of the way.
        count: those that are, as far as is known.
        doubted: answered calls whose callers may have left before: `ended` follows for each.
    """

    def __init__(self) -> None:
        self.size, self.count = MOST, 0
        self.doubted: set[Opening] = set()
        self._last: Batch | None = None
        self._batches: dict[Asked, Batch] = {}
        self._waiting: list[Callable[[], None]] = []
        self._asked: set[Asked] = set()

    def is_full(self) -> bool:
        """Whether one more call has to wait. It is expected to go the way of the last one."""
        count, last = self.count, self._last
        if count < LEAST or last is None:
            return False
        there = count + last.where.count
        if count < self.size and there < ALL:  # however short the way
            return False
        way = last.where.session.way
        return count >= self.size * way or there >= ALL * way

    @property
    def burst(self) -> int:
        """Calls to take in one turn of the loop."""
        return max(1, self.size // TURNS)

    def when_room(self, told: Callable[[], None]) -> None:
        """Call `told`, once, when half of the window is free: not for each call, as that costs system calls.

        The peers are asked, too: a service may take long to accept calls that are in nobody's way any more.
        """
        self._waiting.append(told)
        self._ask([batch for batch in self._batches.values() if batch.count])

    def _ask(self, batches: list[Batch]) -> None:
        for batch in batches:
            session = batch.where.session
            if session not in self._asked and not batch.closed:
                self._asked.add(session)
                self._close(batch)
                session.ask(partial(self._handled, batch))

    def _close(self, batch: Batch) -> None:
        batch.closed = True
        del self._batches[batch.where.session]

    def _handled(self, batch: Batch) -> None:
        self._asked.remove(batch.where.session)
        self.drop(batch, batch.count)
        # There may be calls that have come since, also by other ways than the one who waits (`Call`).
        self._ask([new for new in self._batches.values() if new.count and (self._waiting or new.over)])

    def add(self, where: UnderWay) -> Batch:
        """An OPEN has been written for a call. Returns the batch that it is of until it leaves."""
        batch = self._last
        if batch is None or batch.closed or batch.where is not where:
            self._last = batch = self._batch(where)
        batch.count += 1
        where.count += 1
        self.count += 1
        return batch

    def _batch(self, where: UnderWay) -> Batch:
        found = self._batches.get(where.session)
        if found is None:
            self._batches = {session: batch for session, batch in self._batches.items() if batch.count}
            found = self._batches[where.session] = Batch(self, where)
        return found

    def answered(self, call: Opening, left: bool | None) -> None:
        """The peer has delivered the call, whose caller has `left`, or not. It leaves its batch next (`drop`)."""
        if left is None:
            self.doubted.add(call)
        else:
            self.adapt(left is False)

    def ended(self, call: Opening, reason: CloseReason) -> None:
        """A stream has ended. If it was in doubt whether its caller waits: it did, if it was told something, and was
        still there then. A stream that nobody at its ends has ended says nothing.
        """
        if call in self.doubted:
            self.doubted.remove(call)
            if reason in (CloseReason.FINISHED, CloseReason.ABORTED):
                self.adapt(reason is CloseReason.FINISHED and call.bytes_received > 0 and not call.left())

    def over(self, batch: Batch | None) -> None:
        """A call has ended without an answer: none will come. It stands in the way until the peer has handled it."""
        if batch is not None and batch.count:
            batch.over = True
            batch.window._ask([batch])

    def adapt(self, waited: bool) -> None:
        """A caller has waited for what its call would bring, or has left before."""
        if not waited:
            self.size = max(LEAST, self.size // 2)
        elif self.size < MOST:
            self.size += 1

    def drop(self, batch: Batch, calls: int = 1) -> None:
        """So many calls of the batch are in nobody's way any more. If the peer has handled them all, they have left."""
        if not batch.count:
            return
        batch.count -= calls
        batch.where.count -= calls
        self.count -= calls
        if self._waiting and not self.is_full() and self.count <= self.size * batch.where.session.way // 2:
            waiting, self._waiting = self._waiting, []
            for told in waiting:
                told()

    def link_lost(self, session: Asked) -> None:
        """Its calls wait for another link, where they are in nobody's way, or have none any more. Those of which it was
        asked leave when it tells so (`opening.Asked`).
        """
        batch = self._batches.get(session)
        if batch is not None:
            self._close(batch)
            self.drop(batch, batch.count)
