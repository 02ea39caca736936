"""How often each client may ask, and all of them together (sans-IO): token buckets, for a bounded number of clients.

A client is forgotten when its bucket would be full again. If more than `MOST` are remembered at a time, those that were
heard longest ago are forgotten: who has so many addresses meets the bucket of all.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

from control.base.tokenbucket import TokenBucket

MOST = 4096
"""Clients that are remembered: some 1 MB."""


class RateLimit:
    """See the module's text.

    Args:
        rate, burst: of one client (`TokenBucket`); all_rate, all_burst: of all together, which only those use up that
            their own bucket lets through. None: no such limit.
    """

    def __init__(
        self, rate: float, burst: float, all_rate: float | None = None, all_burst: float = 0.0, most: int = MOST
    ) -> None:
        self._rate, self._burst = rate, burst
        self._all = None if all_rate is None else TokenBucket(all_rate, all_burst)
        self._most = most
        self._clients: OrderedDict[str, TokenBucket] = OrderedDict()

    def allows(self, client: str, now: float) -> bool:
        """Whether this client may ask once more now."""
        self._forget(now)
        bucket = self._clients.get(client)
        if bucket is None:
            bucket = self._clients[client] = TokenBucket(self._rate, self._burst)
        self._clients.move_to_end(client)
        if len(self._clients) > self._most:
            self._clients.popitem(last=False)
        return bucket.take(now) and (self._all is None or self._all.take(now))

    def __len__(self) -> int:
        """Clients that are remembered."""
        return len(self._clients)

    def _forget(self, now: float) -> None:
        """The one heard longest ago has the fullest bucket, nearly: looking at a few each time is enough."""
        for _ in range(2):
            oldest = next(iter(self._clients.values()), None)
            if oldest is None or not oldest.is_full(now):
                return
            self._clients.popitem(last=False)


def client_of(address: str) -> str:
    """Whom an IP address stands for: itself, and of IPv6 the /64 that one machine may choose its addresses from."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is None:
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)
