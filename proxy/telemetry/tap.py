"""Streams as they open and end, for whoever watches (``hostlane tap``).

A service that nobody watches is told of nothing, and its streams take the short way; while somebody does, those of this
service, and of no other, take the way that the access log wants, too. A line is made inside a turn, and put into the
watcher's queue; who takes them too slowly loses the oldest ones, and is told how many.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping

import msgspec
import trio

from control.api.accessline import TapLine
from proxy.errors import OF_APPLICATIONS, CloseReason
from proxy.pump.streamlog import LoggedStream, StreamFacts, StreamLog
from proxy.telemetry.accesslog import line_of

MOST = 8
"""Watchers at a time: half of the admin socket's clients (`admin.MAX_CLIENTS`), which leaves room to ask."""
QUEUE = 1000
"""Lines that wait for one watcher, some half a megabyte."""
PIECE = 100
"""Lines in one write, some 50 kB."""
PULSE = 3.0
"""Seconds after which a watcher is told that there is nothing new: so it knows that the proxy is there, and the proxy
that it is.
"""

_encode = msgspec.json.Encoder().encode


class TapFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which streams somebody wants to see; None: any. `caller` is a name, or `uid N`, as in `hostlane edges`."""

    service: str
    caller: str | None = None
    peer: str | None = None
    direction: str | None = None
    failed: bool = False
    """Only those that were not delivered, or that a proxy ended; when they end."""

    @classmethod
    def of(cls, query: Mapping[str, list[str]]) -> TapFilter:
        """What a request's query says. Raises ValueError with a line for the client."""
        names = cls.__struct_fields__
        if wrong := [name for name in query if name not in names]:
            raise ValueError(f"query {wrong[0][:60]!a} is not allowed; allowed: {', '.join(names)}")
        found = {name: values[-1] for name, values in query.items()}
        if not found.get("service"):
            raise ValueError("no service is named; query: service=NAME")
        failed = found.pop("failed", "no")
        if failed not in ("yes", "no"):
            raise ValueError(f"failed {failed[:60]!a} is not allowed; allowed: yes, no")
        return cls(**found, failed=failed == "yes")

    def takes(self, facts: StreamFacts) -> bool:
        """Whether it is one of these streams."""
        return (
            self.peer in (None, facts.peer)
            and self.direction in (None, facts.direction)
            and self.caller in (None, facts.caller or ("unknown" if facts.uid is None else f"uid {facts.uid}"))
        )


class _Watcher:
    """One who watches, with what it has not fetched yet."""

    def __init__(self, wanted: TapFilter) -> None:
        self.wanted = wanted
        self._lines = deque[TapLine]()
        self._lost = 0
        self._came = trio.Event()

    def put(self, event: str, stream: LoggedStream, reason: str | None = None, detail: str | None = None) -> None:
        facts = stream.facts()
        if not self.wanted.takes(facts):
            return
        if len(self._lines) >= QUEUE:
            self._lines.popleft()
            self._lost += 1
        self._lines.append(line_of(TapLine, event, stream, facts, reason, detail))
        self._came.set()

    async def take(self) -> bytes:
        """What there is by now; an empty line after PULSE without anything."""
        with trio.move_on_after(PULSE):
            await self._came.wait()
        lines = [self._lines.popleft() for _ in range(min(PIECE, len(self._lines)))]
        if lines and self._lost:
            lines[0], self._lost = msgspec.structs.replace(lines[0], lost=self._lost), 0
        if not self._lines:
            self._came = trio.Event()
        return b"".join(_encode(line) + b"\n" for line in lines) or b"\n"

    def wake(self) -> None:
        self._came.set()


class _ServiceTap:
    """Tells those who watch one service, and the access log as before (StreamLog)."""

    def __init__(self, log: StreamLog | None) -> None:
        self._log = log
        self.watchers: dict[_Watcher, None] = {}

    def opened(self, stream: LoggedStream) -> None:
        """A service has taken it (StreamLog)."""
        if self._log is not None:
            self._log.opened(stream)
        for watcher in self.watchers:
            if not watcher.wanted.failed:
                watcher.put("opened", stream)

    def ended(self, stream: LoggedStream, reason: CloseReason, detail: str) -> None:
        """It has ended (StreamLog)."""
        if self._log is not None:
            self._log.ended(stream, reason, detail)
        for watcher in self.watchers:
            if not (watcher.wanted.failed and reason in OF_APPLICATIONS):
                watcher.put("ended", stream, reason.label, detail or None)


class Taps:
    """All who watch.

    Args:
        log: what hears of all streams anyway.
        told: called with a service, and who is to hear of its streams from now on; None: only `log`, again.
    """

    def __init__(self, log: StreamLog | None, told: Callable[[str, StreamLog | None], None]) -> None:
        self._log, self._told = log, told
        self._services: dict[str, _ServiceTap] = {}
        self._over = False

    @property
    def full(self) -> bool:
        """Whether MOST watch."""
        return sum(len(tap.watchers) for tap in self._services.values()) >= MOST

    async def follow(self, wanted: TapFilter, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Send the lines, from an empty one on that says that it has begun, until `close`. Raises what `send` raises.
        """
        watcher = _Watcher(wanted)
        if (tap := self._services.get(wanted.service)) is None:
            tap = self._services[wanted.service] = _ServiceTap(self._log)
            self._told(wanted.service, tap)
        tap.watchers[watcher] = None
        try:
            await send(b"\n")
            while not self._over:
                await send(await watcher.take())
        finally:
            del tap.watchers[watcher]
            if not tap.watchers:
                del self._services[wanted.service]
                self._told(wanted.service, None)

    def close(self) -> None:
        """Another process accepts callers from now on: who watches is to ask that one."""
        self._over = True
        for tap in self._services.values():
            for watcher in tap.watchers:
                watcher.wake()
