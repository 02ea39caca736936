"""Finding dead peers and links: a ping on every link at a fixed interval. The link is ended if nothing at all arrives
after a ping, or if two pings in a row bring neither their answer nor any acknowledgement.

A peer that has vanished (power, cable, firewall) is found within ``ping_interval + ping_timeout``. Pings also carry the
acknowledgement of an idle link's last bytes. The second check finds a link that works in one direction only, or that
loses large packets: the peer's own pings still arrive then. It takes two pings because an answer may be delayed behind
bulk.
"""

from __future__ import annotations

import trio

from proxy.errors import CloseReason
from proxy.pump.link import Link

PATIENCE = 2
"""Pings in a row without an answer or acknowledgement after which the link is ended."""


async def keep_alive(link: Link, interval: float, silence: float) -> None:
    """Ping until the link has ended.

    Args:
        interval: seconds between pings, or `silence` if that is longer.
        silence: seconds without a byte after a ping that mean the peer is gone.
    """
    unanswered = 0
    while not link.ended.is_set():
        heard, answered = link.heard, link.answered
        link.ping()
        with trio.move_on_after(silence):
            await link.ended.wait()
        if link.heard == heard:
            # If this process got no CPU all the time, an answer may wait in the socket: let the pump read it first.
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
