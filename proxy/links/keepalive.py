"""Finding dead peers: a ping on every link at a fixed interval, and an end when nothing at all is heard after it.

A peer that vanished without a word (power, cable, firewall) is found within ``ping_interval + ping_timeout``. Pings
also carry the acknowledgement of an idle link's last bytes.
"""

from __future__ import annotations

import trio

from proxy.errors import CloseReason
from proxy.pump.link import Link


async def keep_alive(link: Link, interval: float, silence: float) -> None:
    """Ping until the link has ended.

    Args:
        interval, silence: seconds between pings; seconds of silence after one that mean the peer is gone. (Where
            `silence` is the longer one, it is the interval too.)
    """
    while not link.ended.is_set():
        before = link.heard
        link.ping()
        with trio.move_on_after(silence):
            await link.ended.wait()
        if link.heard == before and not link.ended.is_set():
            link.doom(CloseReason.PEER_TIMEOUT, f"nothing heard for {silence:g} s after a ping")
            link.pump.settle()
        with trio.move_on_after(max(0.0, interval - silence)):
            await link.ended.wait()
