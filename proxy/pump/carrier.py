"""What a session knows of the link that carries it, what a lane knows of its session, and nothing else. So imports make
no circle: link.py imports session.py, session.py imports lane.py, and lane.py imports this.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from math import inf
from time import monotonic_ns
from typing import Any, cast

import trio

from proxy.mux.replay import ReplayBuffer
from proxy.mux.session import Session, SessionSettings
from proxy.pump.loop import Pump
from proxy.pump.openings import UnderWay
from proxy.pump.turnshare import TurnShare
from proxy.pump.watcher import Carrier

FAR = 256
"""Milliseconds; no way is taken to be longer: half of the earth, and the peer says how long it is."""

ENOUGH = 1.0
"""Seconds, at most twice, that anybody waits for a peer that does not say what it has handled. Nobody gets such an
answer from one that does not mean to give it; whether a link is dead, `links.keepalive` finds out."""


class UsageObserver:
    """Learns from a session how its streams use it (the pool). Called inside turns: must not take long.

    Attributes:
        notable: `stream_ended` is called for streams that have moved at least so many bytes.
    """

    def __init__(self) -> None:
        self.notable = 0

    def began(self) -> None:
        """A session without streams is about to get one."""

    def ended(self) -> None:
        """The last open stream of the session has ended."""

    def stream_ended(self, lane: Any) -> None:
        """A notable stream has ended; its observer has not been told yet."""


class CarriedSession(Session):
    """A session as its lanes see it: `mux.session.Session` with the pump, the link and the budget that they share.

    Args:
        name: for logs and the CLI; peer: the peer's host name.
        usage: learns from the streams; the others are as in `Session`.

    Attributes:
        budget: bytes that the peer's lanes may buffer.
        slow_left: frames other than plain DATA that its link may handle now; `turn.deliver` counts it down.
        turn_share: what its link and the peer's others may do in a turn; whoever makes several sessions sets it.
        link: the link that carries it, or did last; suspended: whether it has none.
        shortest: round trip on its link, seconds; infinite before the first answer to a ping.
        under_way: its calls without an answer.
        ended: set when it has ended.
        waiting: lanes that wait for room in the out-buffer. When the link has sent bytes or handled frames, and little
            is unsent, it calls their ``resume()``.
    """

    def __init__(
        self,
        pump: Pump,
        *,
        name: str,
        peer: str,
        usage: UsageObserver,
        dialler: bool,
        out: ReplayBuffer,
        local: SessionSettings,
        remote: SessionSettings,
    ) -> None:
        super().__init__(dialler=dialler, out=out, local=local, remote=remote)
        self.pump, self.name, self.peer, self.usage = pump, name, peer, usage
        self.budget = pump.budget.account(peer)
        self.turn_share = TurnShare(pump)
        self.link = cast(Carrier, None)  # until `carry_on`, before which nothing asks for it
        self.waiting: dict[Any, None] = {}
        self.suspended, self.slow_left = False, 0
        self.shortest = inf
        self.under_way = UnderWay(self)
        self.ended = trio.Event()
        self._asked: deque[tuple[int, Callable[[], None]]] = deque()
        self._patient = False

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.ended.is_set()

    @property
    def way(self) -> int:
        """Milliseconds of the shortest round trip, at least 1, at most FAR. (The last one may tell of queues.)"""
        return 1 if self.shortest == inf else max(1, min(FAR, int(self.shortest * 1000)))

    def send_now(self) -> None:
        """Send what has been written so far, without waiting for the end of the turn."""
        self.link.flush()

    def ask(self, told: Callable[[], None]) -> None:
        """Call `told` when the peer has handled all that was written until now, or the link is lost, or after ENOUGH.
        Outside a turn, call `Pump.settle` then.
        """
        if self.suspended or self.over:
            return told()
        token = monotonic_ns()
        self._asked.append((token, told))
        self.ping(token)
        if not self._patient:
            self._be_patient()

    def _be_patient(self) -> None:
        self._patient = True
        self.pump.deadlines.add(ENOUGH, partial(self._patience_over, self._asked[-1][0]))

    def _patience_over(self, token: int) -> None:
        self._patient = False
        self.tell_asked(token)
        if self._asked and not self._patient:
            self._be_patient()

    def tell_asked(self, answered: int | None = None) -> None:
        """Tell those who `ask`ed of which the ping with this token is the answer, or an earlier one; None: all."""
        while self._asked and (answered is None or self._asked[0][0] <= answered):
            self._asked.popleft()[1]()
