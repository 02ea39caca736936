"""Which link of a pool a new stream takes.

Nearly every stream takes the same one: the first link that is not set apart for bulk. The picker remembers it, as the
link at hand, so that a call pays for one look at it and no more. The long way, through `policy.choose`, is for streams
of a service that is counted because it has proved heavy, and for those that come while the link at hand is congested,
crowded or leaving, or while there is none. The link that a light stream gets the long way is at hand for the next call.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from proxy.pool.bulk import BulkStreams
from proxy.pool.pacing import Pacer
from proxy.pool.policy import CROWDED, choose, wants_more
from proxy.pool.usage import PoolUsage
from proxy.pump.link import Link


class Picker:
    """Picks the link for each new stream of a pool, and remembers the one that most of them take.

    Args:
        usage: counts the picks; bulk: sets links apart for heavy streams.
        ask: called when one more link would be worth its handshake, with whether it would be for bulk.
        pacer: keeps to what the peer takes in a second. While that is counted, every call goes the long way.
        look_soon: called when the pool should count a heavy service's streams now (`Pool.next_step`), not 5 s later.

    Attributes:
        links: those that are up, in the order in which they came up; changed by `add` and `remove` only.
        opened_ahead: the link that was opened ahead of an expected use, until a stream takes it.
    """

    def __init__(
        self,
        usage: PoolUsage,
        bulk: BulkStreams,
        pacer: Pacer,
        ask: Callable[[bool], None],
        look_soon: Callable[[], None],
    ) -> None:
        self.links: list[Link] = []
        self.opened_ahead: Link | None = None
        self._usage, self._bulk, self._pacer, self._ask, self._look_soon = usage, bulk, pacer, ask, look_soon
        self._at_hand: Link | None = None

    def add(self, link: Link, ahead: bool) -> None:
        """A link has come up; it was opened `ahead` of an expected use, or not."""
        self.links.append(link)
        self.opened_ahead = link if ahead else None
        self._at_hand = None

    def remove(self, link: Link) -> None:
        """A link has ended."""
        self.links.remove(link)
        self._pacer.forget(link)
        if link is self.opened_ahead:
            self.opened_ahead = None
        self._at_hand = None

    def look(self) -> None:
        """Forget the link at hand. The next call goes the long way, which finds whether another link is first by now,
        and whether one more is worth its handshake.
        """
        self._at_hand = None

    def pick(self, service: str = "") -> Link | None:
        """The link on which the caller opens a new stream at once; None: no link takes one. Calls `ask` if one more
        link would be worth its handshake.
        """
        usage, link = self._usage, self.handy(service)
        if link is None:
            link = self._choose(service)
            if link is None:
                return None
        usage.avoided += 1
        usage.warm += 1
        return link

    def handy(self, service: str) -> Link | None:
        """The link at hand, if the next stream of the service can take it without another look at all of them."""
        link = self._at_hand
        counted = self._usage.counted
        if link is None or link.congested or (counted and service in counted):
            return None
        session = link.session
        # A quota that is used up only means that the session asks for another one (`can_open`): the long way does.
        return link if session.open_quota > 0 and len(session.streams) < CROWDED else None

    def _choose(self, service: str) -> Link | None:
        usage = self._usage
        counted = service in usage.counted
        bulk = counted and usage.bulk(service, trio.current_time())
        link = choose(self.links, bulk)
        if link is None:
            self._at_hand = None
            return None
        if not self._pacer.take(link, link.answered, trio.current_time()):
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
        """Whether the next call should get it too: no, if a link before it was passed over for being congested only,
        and will be first again, if it is for bulk and another one, which is full, is not, or while opens are paced.
        """
        if self._pacer.rate is not None or (link.bulk and not all(each.bulk for each in self.links)):
            return False
        for each in self.links:
            if each is link:
                break
            if each.usable and not each.bulk and each.congested:
                return False
        return True
