"""Which link of a pool a new stream takes.

Nearly every stream takes the same one: the first link that is for small messages. That one is kept at hand, so that a
call pays for a look at it and no more. All others go through `policy.choose`: streams of a service that has proved
heavy, and those that come while the link at hand is congested, crowded or leaving, or while there is none at hand.
Nothing of that lasts: what was chosen the long way is at hand for the next call.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from proxy.pool.bulk import BulkStreams
from proxy.pool.policy import CROWDED, choose, wants_more
from proxy.pool.usage import PoolUsage
from proxy.pump.link import Link


class Picker:
    """See the module's text.

    Args:
        usage: counts what is picked; bulk: sets links apart.
        ask: called where another link would be better, with whether it is for streams that are likely to be heavy.
        look_soon: called where the pool should take stock before its next look.

    Attributes:
        links: those that are up, in the order in which they came up; changed by `add` and `remove` only.
        opened_ahead: the link that was opened ahead of an expected use, until it is used.
    """

    def __init__(
        self, usage: PoolUsage, bulk: BulkStreams, ask: Callable[[bool], None], look_soon: Callable[[], None]
    ) -> None:
        self.links: list[Link] = []
        self.opened_ahead: Link | None = None
        self._usage, self._bulk, self._ask, self._look_soon = usage, bulk, ask, look_soon
        self._at_hand: Link | None = None

    def add(self, link: Link, ahead: bool) -> None:
        """A link has come up; it was opened `ahead` of an expected use, or not."""
        self.links.append(link)
        self.opened_ahead = link if ahead else None
        self._at_hand = None

    def remove(self, link: Link) -> None:
        """It has ended."""
        self.links.remove(link)
        if link is self.opened_ahead:
            self.opened_ahead = None
        self._at_hand = None

    def look(self) -> None:
        """Another link may be the first one for small messages, or want relief: choose again for the next call."""
        self._at_hand = None

    def pick(self, service: str = "") -> Link | None:
        """The link for a new stream, which the caller opens at once, if any is up; asks for another one where that
        would be better.
        """
        usage, link = self._usage, self._at_hand
        if (
            link is None
            or link.congested
            or (session := link.session).open_quota <= 0
            or len(session.streams) >= CROWDED
            or service in usage.counted
        ):
            link = self._choose(service)
            if link is None:
                return None
        usage.avoided += 1
        usage.warm += 1
        return link

    def _choose(self, service: str) -> Link | None:
        usage = self._usage
        counted = service in usage.counted
        bulk = counted and usage.bulk(service, trio.current_time())
        link = choose(self.links, bulk)
        if link is None:
            self._at_hand = None
            return None
        if wants_more(link, bulk):
            self._ask(bulk)
        if bulk:
            if not link.bulk:
                link = self._bulk.set_apart(link, self.links)
            if link.bulk and link is self._at_hand:
                self._at_hand = None
        else:
            self._at_hand = link if self._lasting(link) else None
        if counted and service in usage.counted and usage.opened(service):
            self._look_soon()
        if link is self.opened_ahead:
            self.opened_ahead = None
            usage.ahead += 1
        return link

    def _lasting(self, link: Link) -> bool:
        """Whether it would be chosen again: no link before it is only congested for the moment."""
        for each in self.links:
            if each is link:
                break
            if each.usable and not each.bulk and each.congested:
                return False
        return True
