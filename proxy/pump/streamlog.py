"""What a stream is to the access log: told when it is delivered and when it has ended, by whoever called or delivers
it. And the line that any stream gets in the log when it ends.
"""

from __future__ import annotations

from time import monotonic
from typing import NamedTuple, Protocol

import structlog

from control.api.messages import StreamDirection
from proxy.errors import CloseReason
from proxy.pump.lane import Lane
from proxy.pump.session import LaneSession
from proxy.pump.stalls import Stalls, StallSeconds

log = structlog.get_logger()

_LEVELS = {CloseReason.FINISHED: "debug", CloseReason.ABORTED: "info"}
"""Of the reasons for which applications end streams. Any other reason is a warning, and counts as a failure."""


class StreamFacts(NamedTuple):
    """All that is known of a stream at a moment. Bytes are payload; times are seconds, None where there was no such
    moment yet.
    """

    service: str
    direction: StreamDirection
    caller: str
    """The calling service, where its host knows it, else empty."""
    uid: int | None
    pid: int | None
    """Of a caller through a Unix socket; the process only on its own host."""
    peer: str | None
    """The other host; None: the stream stays within this one, or no host took it."""
    link: str | None
    tries: int
    """Hosts, or links, that it was offered to so far."""
    age: float
    """Since the caller was accepted, or OPEN came."""
    wait: float | None
    """From then until it was offered to the last host: for a link, and for those that refused."""
    open: float | None
    """From then until that host's service had taken it."""
    first_byte: float | None
    """Since the caller was accepted, until the first byte of the answer came; of inbound streams not known."""
    stalled: StallSeconds
    """How long it was held back, seconds."""
    sent: int
    received: int


class LoggedStream(Protocol):
    """A call, or a delivery."""

    @property
    def stream_id(self) -> str | None:
        """The same on both hosts; None: no link carries it."""

    def facts(self) -> StreamFacts:
        """What is known of it now."""


class StreamLog(Protocol):
    """Takes what becomes of streams. Called inside turns: must not block."""

    def opened(self, stream: LoggedStream) -> None:
        """A service has taken it."""

    def ended(self, stream: LoggedStream, reason: CloseReason, detail: str) -> None:
        """It has ended, delivered or not. Called once."""


def stream_id(lane: Lane) -> str:
    """The id of a stream that both of its hosts know: half of the session's random id, and its number therein."""
    session = lane.session
    assert isinstance(session, LaneSession)
    return f"{session.key[:16]}/{lane.id}"


def stalled(stalls: Stalls | None, now: float) -> StallSeconds:
    """What a lane's are by now."""
    return NEVER if stalls is None else stalls.so_far(now)


NEVER = StallSeconds(0.0, 0.0, 0.0)


def report(
    reason: CloseReason,
    *,
    since: float,
    service: str,
    direction: StreamDirection,
    peer: str | None,
    **fields: str | int,
) -> None:
    """Log the line: debug for a clean end, info if an application aborted the stream, a warning if it failed. Ends of
    one service, with one peer and reason, are summarised. `since`: when it began, seconds (monotonic).
    """
    level = _LEVELS.get(reason, "warning")
    getattr(log, level)(
        "stream ended",
        kind=(service, direction, peer, reason),
        reason=reason.label,
        age_s=round(monotonic() - since, 3),
        service=service,
        direction=direction,
        peer=peer,
        **fields,
    )


def report_lane(lane: Lane, reason: CloseReason, service: str, direction: StreamDirection, detail: str = "") -> None:
    """`report` a stream that a lane has carried."""
    report(
        reason,
        since=lane.since,
        service=service,
        direction=direction,
        peer=lane.session.peer,
        detail=detail,
        sent=lane.bytes_sent,
        received=lane.bytes_received,
    )
