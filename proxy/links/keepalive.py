"""Finding dead peers and links: a ping on every link at a fixed interval, and an end when nothing at all is heard after
it, or nothing shows twice in a row that what this side sends arrives.

A peer that vanished without a word (power, cable, firewall) is found within ``ping_interval + ping_timeout``. Pings
also carry the acknowledgement of an idle link's last bytes. The second sign finds a link that works in one direction
only, or on which large packets vanish: the peer's own pings still come. It must fail twice because the answer may stand
behind bulk.
"""

from __future__ import annotations

import trio

from proxy.errors import CloseReason
from proxy.pump.link import Link

PATIENCE = 2
"""Pings in a row after which nothing was acknowledged."""


async def keep_alive(link: Link, interval: float, silence: float) -> None:
    """Ping until the link has ended.

    Args:
        interval, silence: seconds between pings; seconds of silence after one that mean the peer is gone. (Where
            `silence` is the longer one, it is the interval too.)
    """
    unanswered = 0
    while not link.ended.is_set():
        heard, answered = link.heard, link.answered
        link.ping()
        with trio.move_on_after(silence):
            await link.ended.wait()
        if link.heard == heard:
            # Where this process had no core for so long, an answer may lie in the socket: the pump is due now as well.
            await trio.lowlevel.checkpoint()
        unanswered = 0 if link.answered != answered else unanswered + 1
        if link.heard == heard:
            _give_up(link, f"nothing heard for {silence:g} s after a ping")
        elif unanswered == PATIENCE:
            text = f"{PATIENCE} pings in a row not answered, nothing acknowledged, but bytes come from the peer"
            _give_up(link, f"{text}: do large packets get through? (hostlane check)")
        with trio.move_on_after(max(0.0, interval - silence)):
            await link.ended.wait()


def _give_up(link: Link, why: str) -> None:
    if not link.ended.is_set():
        link.doom(CloseReason.PEER_TIMEOUT, why)
        link.pump.settle()
