"""What is told of one stream: a line of the access log (docs/access-log.md), and of `hostlane tap`."""

from __future__ import annotations

from msgspec import Struct


class AccessLine(Struct, frozen=True, kw_only=True):
    """One line. Bytes are payload; what is not known, or has not been yet, is null."""

    time: str
    """When, UTC."""
    event: str
    """opened, interval or ended."""
    id: str | None
    """Of the stream, the same on both hosts; null: it never got to one."""
    service: str
    direction: str
    """outbound: of a caller on this host; inbound: of a peer's; local: both are on this host."""
    caller: str | None
    """The calling service, where its host knows it."""
    uid: int | None
    """The calling process's user, on its own host."""
    pid: int | None
    """The calling process, where it is on this host."""
    peer: str | None
    link: str | None
    tries: int
    """Hosts that it was offered to so far."""
    age_s: float
    """Since the caller was accepted; inbound: since the peer had it brought here."""
    wait_ms: float | None
    """From then until it was offered to the host that took it, or to the last one."""
    open_ms: float | None
    """From then until that host's service had taken it."""
    first_byte_ms: float | None
    """Since the caller was accepted, until the first byte of the answer; null: there was none."""
    sent: int
    """Bytes from the caller; inbound: from the service."""
    received: int
    stalled_s: dict[str, float]
    """How long it was held back by ``credit``, ``link``, ``reader``, where it was."""
    reason: str | None = None
    """Why it has ended (``ended`` only), a close reason as everywhere."""
    detail: str | None = None


class TapLine(AccessLine, frozen=True, kw_only=True):
    """A line of what `hostlane tap --json` prints, and of `GET /tap`: a stream has opened, or has ended. As in the
    access log, with `lost`: so many lines before this one found no place, as nobody took them fast enough.
    """

    lost: int = 0
