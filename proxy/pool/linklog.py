"""What the log says of links that come and go, and of sessions that end without one.

A peer can make links come and go as often as it likes: all of it is summarised (``kind``).
"""

from __future__ import annotations

import structlog

from proxy.pump.link import Link
from proxy.pump.session import LaneSession

log = structlog.get_logger()


def log_link_up(link: Link, ahead: bool) -> None:
    """Log a link before it starts; `ahead`: it was opened ahead of an expected use."""
    session = link.session
    log.info(
        "link up",
        kind=(link.peer, link.dialled),
        link=link.name,
        peer=link.peer,
        dialled=link.dialled,
        ahead=ahead,
        resumed=session.resumed + session.suspended,
        local=link.local_address,
        remote=link.remote_address,
    )


def log_link_down(link: Link, expected: bool) -> None:
    """Log the end of a link, how many streams ended with it, and how many go on waiting for another one."""
    level = log.info if expected else log.warning
    level(
        "link down",
        kind=(link.peer, link.reason),
        link=link.name,
        peer=link.peer,
        reason=link.reason.label,
        detail=link.detail,
        streams=link.session.lost_streams,
        suspended=len(link.session.streams),
        age_s=round(link.age, 1),
    )


def log_session_over(session: LaneSession) -> None:
    """Log the end of a session that had lost its link and got no other."""
    log.warning(
        "session ended",
        kind=(session.peer, session.reason),
        link=session.name,
        peer=session.peer,
        reason=session.reason.label,
        detail=session.detail,
        streams=session.lost_streams,
    )
