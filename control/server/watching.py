"""All watchers of the map: who gets which line when.

A change is told at once, and then nothing for a while (`PACE`, `REST`): what happens meanwhile is told together, and
most of the server's time stays for everything else. Watchers are woken a few at a time, so that requests between them
wait for few. A watcher that does not take what it is sent is dropped by its connection's deadline; it holds up nobody,
as no other waits for it.

Where there are several control servers, watchers that are willing may be asked to go to another one
(`control.server.servers`). They are watchers here until they have gone.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import msgspec
import trio

from control.api import mesh
from control.base.errors import RequestRefused
from control.base.histogram import Histogram
from control.base.reading.times import when
from control.server.feed import MapFeed
from control.server.namesakes import Namesakes
from control.server.routes import Caller
from control.server.servers import ControlServers

__all__ = ["ASKED_EVERY", "PACE", "MapWatchers"]

PACE, LONGEST = 0.1, 1.0
"""Seconds between the end of one telling and the next, at least and at most. New streams may lag 2 s."""
REST = 4
"""Times as long as the telling took, between those two. While a thousand hosts come back, each is a change that
hundreds are told of: with a pause as long as the telling it took more of the server's time than their coming."""
ASKED_EVERY = 60.0
"""Seconds from the beginning of a watch until it is asked to go elsewhere, at least, and until it is asked again."""
GOING = 1.0
"""Seconds that one which was asked has to go; it takes milliseconds. Meanwhile it is told nothing here."""
CHANGE_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Bounds: new streams may lag 2 s."""
_ELSEWHERE = msgspec.json.encode(mesh.MapElsewhere()) + b"\n"
TOGETHER = 50
"""Watchers woken in one round of the event loop: about 10 ms of work."""


class MapWatchers:
    """See the module's text. `now`: seconds since 1970.

    Attributes:
        feed: None while the store cannot be watched: a map of which nobody knows whether it is still true is not told.
        revoked: serial numbers of certificates that do not count any more.
        issuers: the CAs in force (`control.ca.trust.TrustView`), whose certificates count; empty: not known.
        watchers: how many there are.
        namesakes: told which processes of hosts watch.
        servers: the other control servers.
        change_seconds: from when a change is known here until the last of those who waited for one has been sent it.
            One that leaves meanwhile, or takes none, leaves that change out.
    """

    def __init__(
        self, most: int, now: Callable[[], float] = time.time, servers: ControlServers | None = None
    ) -> None:
        self._most = most
        self._now = now
        self.feed: MapFeed | None = None
        self.revoked: frozenset[str] = frozenset()
        self.issuers: frozenset[bytes] = frozenset()
        self.watchers = 0
        self.namesakes = Namesakes()
        self.servers = servers or ControlServers()
        self._to_ask = self._asked = self._went = 0
        self._changed = trio.Event()
        self._waiting = trio.lowlevel.ParkingLot()
        self._telling = 0  # tellings so far
        self.change_seconds = Histogram(CHANGE_SECONDS)
        self._changed_at: float | None = None
        self._measured, self._left, self._measured_from = -1, 0, 0.0
        self._ended = False

    def publish(self) -> None:
        """The feed, or whether there is one, has changed."""
        self._changed.set()
        if self._changed_at is None:
            self._changed_at = trio.current_time()

    def end(self) -> None:
        """End all watches: their clients go to another server, or come back when this one does."""
        self._ended = True
        self._telling += 1
        self._waiting.unpark_all()

    def checked(self) -> MapFeed:
        """The feed. Raises RequestRefused (503 ``store``) if there is none that is known to be true."""
        if self.feed is None or self._ended:
            raise RequestRefused(503, "store", "this control server has no view of its store now; try another one")
        return self.feed

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Wake the watchers when something is published, or for a heartbeat, until cancelled."""
        task_status.started()
        began = trio.current_time()
        while True:
            with trio.move_on_at(began + mesh.HEARTBEAT) as quiet:
                await self._changed.wait()
            self._changed = trio.Event()
            began = trio.current_time()
            self._telling += 1
            if self.feed is not None:
                self.feed.telling()
            if self._changed_at is not None:
                self._measured, self._left, self._measured_from = self._telling, len(self._waiting), self._changed_at
                self._changed_at = None
            # Wake those who are parked. A watcher that is still sending, or has just come, sees by `_telling` that it
            # has missed one, and does not park.
            for _ in range(0, len(self._waiting), TOGETHER):
                self._waiting.unpark(count=TOGETHER)
                await trio.lowlevel.checkpoint()
            # After a heartbeat no pause is needed: the next change may be told at once.
            if not quiet.cancelled_caught:
                await trio.sleep(max(PACE, min(REST * (trio.current_time() - began), LONGEST)))

    def even_out(self) -> None:
        """A round is over: ask some watchers to go, if other control servers have fewer."""
        if self.feed is None or self._ended:
            return
        self._to_ask = self.servers.let_go(self.watchers, self._asked, self._went)
        self._asked = self._went = 0
        if self._to_ask:
            self.publish()

    def admit(self, sent: bool = False) -> MapFeed:
        """Whether there may be one more watcher; `sent`: another control server has asked it to go. Raises
        RequestRefused (503 ``store``, ``busy`` or ``even``).
        """
        if sent and not self.servers.takes(self.watchers):
            raise RequestRefused(503, "even", "this control server has its share of the watchers")
        if self.watchers >= self._most:
            raise RequestRefused(503, "busy", f"more than {self._most} watchers; try another control server")
        return self.checked()

    async def watch(
        self,
        caller: Caller,
        epoch: str,
        after: int,
        send: Callable[[bytes], Awaitable[None]],
        instance: str = "",
        gone: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Tell one watcher, `instance` of its host, everything, until its feed ends, its certificate is revoked, or
        `send` raises. `gone` returns when the watcher has left; None: it is not to be asked to go elsewhere.
        """
        with self.namesakes.watching(caller.host, instance):
            await self._tell(caller, epoch, after, send, gone)

    async def _tell(
        self,
        caller: Caller,
        epoch: str,
        after: int,
        send: Callable[[bytes], Awaitable[None]],
        gone: Callable[[], Awaitable[None]] | None,
    ) -> None:
        feed = self.feed
        # The feed was lost after `admit`: this watch ends as all others have.
        if feed is None or self._ended:
            return
        have = feed.begin(epoch, after)
        ask_at = trio.current_time() + ASKED_EVERY
        self.watchers += 1
        try:
            while self.feed is feed and not self._ended and self.refuses(caller) is None:
                telling = self._telling
                news = feed.next(have)
                if news is not None:
                    have = news.revision
                    await send(news.line)
                else:
                    assert have is not None
                    await send(feed.heartbeat(have))
                if telling == self._measured:
                    self._has_it()
                if gone is not None and self._to_ask and trio.current_time() >= ask_at:
                    ask_at = trio.current_time() + ASKED_EVERY
                    if await self._goes(send, gone):
                        return
                # A change between two tellings waits for the next one, even if this watcher could be sent it now.
                if self._telling == telling:
                    await self._waiting.park()
        finally:
            self.watchers -= 1

    def _has_it(self) -> None:
        """One more of those who waited when the last change was told has it."""
        self._left -= 1
        if not self._left:
            self.change_seconds.observe(trio.current_time() - self._measured_from)

    async def _goes(self, send: Callable[[bytes], Awaitable[None]], gone: Callable[[], Awaitable[None]]) -> bool:
        """Ask a watcher to go elsewhere, and wait a moment to see whether it does. Otherwise nobody would know before
        it is told something again, and it would count here and there.
        """
        self._to_ask -= 1
        self._asked += 1
        await send(_ELSEWHERE)
        with trio.move_on_after(GOING):
            await gone()
            self._went += 1
            return True
        return False

    def refuses(self, caller: Caller) -> RequestRefused | None:
        """Why the caller's certificate does not count (any more), as what it is told (403 ``revoked``, ``expired``,
        ``early``, ``dropped``): while a connection lasts it may expire, be revoked, or be of a CA that was dropped
        since. None: it counts.
        """
        what = f"this certificate of {f'host {caller.host}' if caller.server is None else caller.server}"
        if caller.serial in self.revoked:
            return RequestRefused(403, "revoked", f"{what} has been revoked")
        if caller.expires is not None and self._now() >= caller.expires:
            return RequestRefused(403, "expired", f"{what} has expired: on {when(caller.expires)}")
        if caller.began is not None and self._now() < caller.began:
            here = f"and here it is {when(self._now())}"
            return RequestRefused(403, "early", f"{what} is not valid before {when(caller.began)}, {here}")
        # Without a feed the CAs are not known: a new one may be in force since the store was last seen.
        if caller.issuer is None or self.feed is None or not self.issuers or caller.issuer in self.issuers:
            return None
        return RequestRefused(403, "dropped", f"{what} is of a CA that is no longer in force")
