"""The addresses of services that are known by a host name: what was found last, and when to ask again.

getaddrinfo does not tell how long an answer is good for. So an answer counts for FRESH seconds; then a call asks
again, and waits for that. While the name service gives no answer, or says that it cannot, the last good one goes on for
up to a day (RFC 8767 has the reasons, and the numbers). That a name does not exist *is* an answer: nothing old is used
then.

One name's trouble is its own: it has one look-up at a time (`pump.lookups`), and a bounded number of calls wait for it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from time import monotonic

import structlog

from proxy.pump.deadlines import Deadline, Deadlines
from proxy.pump.lookups import Answer as LookUpAnswer
from proxy.pump.lookups import LookUps

log = structlog.get_logger()

FRESH = 5.0
"""Seconds for which an answer is used without asking again: what a container that comes back with another address
costs, unless connecting fails before (`Resolver.doubt`)."""
PATIENCE = 1.0
"""Seconds that a call waits for a new answer if there is an old one. RFC 8767, section 5: 1.8 s at most."""
RETRY = 1.0
"""Seconds for which a failure is the answer, so that many calls do not ask again and again."""
OLDEST = 86_400.0
"""Seconds after which an old answer is not used any more: RFC 8767, section 5, between 1 and 3 days."""
MOST_WAITING = 256
"""Calls that may wait for one name, so that a name without an answer does not collect them. More use its old addresses,
or are refused where it has none."""
MOST_NAMES = 4096
"""Names that are remembered."""
HOLD_BACK = 10.0
"""Seconds for which an address that did not accept is tried after the others (RFC 8305, section 4, allows for it)."""

Answer = list[str] | OSError
Tell = Callable[[Answer], None]
_GONE = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}


class TooMany(OSError):
    """MOST_WAITING calls wait for the name already."""


class KnownName:
    """What is known of one name."""

    __slots__ = (
        "addresses",
        "asked",
        "error",
        "found_at",
        "held_back",
        "host",
        "said",
        "turn",
        "until",
        "waiting",
        "waits",
    )

    def __init__(self, host: str) -> None:
        self.host = host
        self.addresses: tuple[str, ...] = ()
        self.found_at = 0.0
        self.until = 0.0
        """Until then what is known is the answer: `addresses`, or `error` where there are none."""
        self.error = OSError("never asked")
        self.asked: float | None = None
        """When the look-up that is under way began."""
        self.waiting: dict[Tell, None] = {}
        self.waits: Deadline | None = None
        self.held_back: dict[str, float] = {}
        self.turn = 0
        self.said = False

    def answer(self, now: float) -> Answer:
        """The addresses, best first, or why there are none."""
        if self.addresses and now - self.found_at > OLDEST:
            self.addresses = ()
        return self._ordered(now) if self.addresses else self.error

    def _ordered(self, now: float) -> list[str]:
        """Each time another address of a family comes first, so that calls spread over all; which family comes first is
        the C library's choice (RFC 6724), and they take turns (RFC 8305, section 4). Held back ones come last.
        """
        self.turn += 1
        families: dict[bool, list[str]] = {}
        for address in self.addresses:
            families.setdefault(":" in address, []).append(address)
        rows = [_rotated(row, self.turn) for row in families.values()]
        mixed = [row[at] for at in range(max(map(len, rows))) for row in rows if at < len(row)]
        if not self.held_back:
            return mixed
        self.held_back = {address: until for address, until in self.held_back.items() if until > now}
        return sorted(mixed, key=lambda address: address in self.held_back)


class Resolver:
    """Knows the names. All of it runs in the trio thread.

    Args:
        settle: called after calls that waited have been told: `Pump.settle`.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        lookups: LookUps,
        deadlines: Deadlines,
        settle: Callable[[], None],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._lookups, self._deadlines, self._settle, self._clock = lookups, deadlines, settle, clock
        self._names: dict[str, KnownName] = {}

    def ask(self, host: str, tell: Tell) -> bool:
        """Find the addresses of a name. `tell` is called once, perhaps before this returns; whether it will be called
        later is returned. `forget` takes it back.
        """
        name, now = self._known(host), self._clock()
        if now < name.until:
            tell(name.answer(now))
            return False
        if name.asked is not None and name.addresses and now - name.asked >= PATIENCE:
            tell(name.answer(now))
            return False
        if len(name.waiting) >= MOST_WAITING:
            too_many = TooMany(f"{MOST_WAITING} connections wait for the address of {host} already")
            tell(name.answer(now) if name.addresses else too_many)
            return False
        name.waiting[tell] = None
        if name.asked is None:
            name.asked = now
            self._lookups.start((host, None, 0, socket.SOCK_STREAM), partial(self._answered, name))
        if name.addresses and name.waits is None:
            name.waits = self._deadlines.add(PATIENCE - (now - name.asked), partial(self._use_old, name))
        return True

    def forget(self, host: str, tell: Tell) -> None:
        """Do not call `tell` any more. Idempotent."""
        if (name := self._names.get(host)) is not None:
            name.waiting.pop(tell, None)

    def hold_back(self, host: str, address: str) -> None:
        """A connection to this address failed: try it after the others for a while."""
        if (name := self._names.get(host)) is not None:
            name.held_back[address] = self._clock() + HOLD_BACK

    def doubt(self, host: str) -> None:
        """None of a name's addresses accepted: ask again for the next call, as the service may have moved."""
        if (name := self._names.get(host)) is not None and name.addresses:
            name.until = 0.0

    def _known(self, host: str) -> KnownName:
        name = self._names.get(host)
        if name is None:
            if len(self._names) >= MOST_NAMES:
                self._names = {host: name for host, name in self._names.items() if name.asked is not None}
            name = self._names[host] = KnownName(host)
        return name

    def _answered(self, name: KnownName, answer: LookUpAnswer) -> None:
        name.asked, now = None, self._clock()
        if isinstance(answer, OSError):
            name.error, name.until = answer, now + RETRY
            if answer.errno in _GONE:
                name.addresses = ()
            elif name.addresses:
                self._say(name, answer.strerror or str(answer))
        else:
            name.addresses = tuple(dict.fromkeys(str(sockaddr[0]) for *_rest, sockaddr in answer))
            name.found_at, name.until = now, now + FRESH
            if name.said:
                log.info("a name is resolved again", name=name.host)
            name.said = False
        self._tell(name)
        self._settle()

    def _use_old(self, name: KnownName) -> None:
        name.waits = None
        if name.asked is not None:
            self._say(name, f"no answer in {PATIENCE:g} s")
            self._tell(name)

    def _say(self, name: KnownName, why: str) -> None:
        """Once, until there is an answer again."""
        if not name.said:
            name.said = True
            log.warning("a name is not resolved: its last addresses are used", name=name.host, error=why)

    def _tell(self, name: KnownName) -> None:
        if name.waits is not None:
            name.waits.cancel()
            name.waits = None
        waiting, name.waiting = name.waiting, {}
        for tell in waiting:
            try:
                tell(name.answer(self._clock()))
            except Exception:  # the barrier: one call's bug is not that of the others who wait
                log.exception("unexpected error with an answer of the name service", name=name.host)


def _rotated(row: list[str], by: int) -> list[str]:
    first = by % len(row)
    return row[first:] + row[:first]
