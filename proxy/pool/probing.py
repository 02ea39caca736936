"""Asking whether a peer still listens, while sessions with it wait for a link.

A peer whose host refuses every connection for ``links.refused_timeout`` has no proxy that could go on with a session:
they end then, and their streams need not wait for ``links.resume_timeout``. That is for a peer that gives no answer.
Whichever side has lost the link asks. The side that dialled dials as well, but ever more rarely; the other side has no
other way to find out.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from time import monotonic

import structlog
import trio

from control.base.reading.addresses import TcpAddress
from proxy.config.schema import LinksConfig
from proxy.links.probe import Answer, ask
from proxy.pool.dialling import Dialler
from proxy.pool.refusals import RefusalRun, pause
from proxy.pool.sessions import PoolSessions

log = structlog.get_logger()

AGAIN = 1.0
"""Seconds to the next question when the peer has not refused: nothing is decided by it, but it may refuse later."""
ASK_AGAIN = 10.0
"""Seconds between two dials to a peer that listens and does not come back: the last one may have come to nothing."""


class PeerProbe:
    """Asks the peer of one pool.

    Args:
        sessions: ends those that it is to end; dialler: knows the peer's address.
        there: called when the peer listens, and either has refused before, or sessions have waited for so long that its
            proxy may be another process by now.
    """

    def __init__(self, sessions: PoolSessions, dialler: Dialler, there: Callable[[], None]) -> None:
        self._sessions, self._dialler, self._there = sessions, dialler, there

    @property
    def _links(self) -> LinksConfig:
        return self._sessions.settings

    async def run(self) -> None:
        """Ask whenever sessions wait; until cancelled."""
        while True:
            await self._sessions.until_one_waits()
            await self._ask_while_any_waits()

    async def _ask_while_any_waits(self) -> None:
        run, told, asked = RefusalRun(), -inf, self._dialler.peer.address
        wait = pause(self._links.refused_timeout)
        while True:
            await trio.sleep(wait)  # first of all, too: most links are replaced sooner than a question is answered
            if not self._sessions.suspended:
                return
            address = self._dialler.peer.address
            if address != asked:
                run, asked = RefusalRun(), address
            answer = await ask(address, device=self._dialler.device, seconds=self._links.dial_timeout)
            if address != self._dialler.peer.address:
                continue  # that is where the peer was
            now, timeout, unbroken = monotonic(), self._links.refused_timeout, run.unbroken
            if (answer is Answer.REFUSED) is not unbroken:
                self._tell(address, answer, timeout)
            if answer is Answer.REFUSED:
                run.refused(now, timeout)
                self._sessions.refused_by(address, run)
                wait, told = pause(timeout), -inf
                continue
            long = unbroken or any(now - each.lost_at > timeout for each in self._sessions.suspended)
            if answer is Answer.LISTENING and long and now - told > ASK_AGAIN:
                told = now
                self._there()
            run.broken()
            wait = AGAIN

    def _tell(self, address: TcpAddress, answer: Answer, timeout: float) -> None:
        peer, what = self._sessions.peer, address.hostport
        if answer is Answer.REFUSED:
            log.info("peer refuses connections", kind=(peer,), peer=peer, address=what, streams_end_in_s=timeout)
        else:
            said = answer.name.lower()
            log.info("peer refuses no longer", kind=(peer,), peer=peer, address=what, answer=said)
