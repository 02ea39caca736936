"""Every error that Hostlane raises on purpose, and the one list of reasons for which a stream or a link ends.

A class outside this tree that escapes from proxy/ or control/ is a bug, not an error message.
"""

from __future__ import annotations

import enum

from control.base.errors import ConfigError, HostlaneError, StartError

__all__ = [
    "OF_APPLICATIONS",
    "CloseReason",
    "ConfigError",
    "HandshakeError",
    "HostlaneError",
    "NetError",
    "ProtocolError",
    "StartError",
]


class NotApplied(HostlaneError):
    """A running proxy cannot take a configuration over; it goes on with the one that it has.

    Attributes:
        problems: one line each.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class NetError(HostlaneError):
    """The kernel, a device or another program refused something about network interfaces, or they are not as wanted."""


class ProtocolError(HostlaneError):
    """The peer broke the wire specification (proxy/mux/SPEC.md). Its link is closed; nobody else notices."""


class HandshakeError(HostlaneError):
    """A link could not be made, or the two proxies did not agree (version, name...).

    Attributes:
        reason: what the peer is told, or has told us.
    """

    def __init__(self, text: str, reason: CloseReason | None = None) -> None:
        super().__init__(text)
        self.reason = CloseReason.PROTOCOL_ERROR if reason is None else reason


class CloseReason(enum.IntEnum):
    """Why a stream or link ended. The number travels in RST, REFUSE and GOAWAY; the name stands in logs, metrics and
    CLI.
    """

    FINISHED = 0
    """Both directions ended cleanly."""
    ABORTED = 1
    """An application reset its connection, or closed it with bytes unread."""
    NO_SUCH_SERVICE = 2
    """The receiving host does not offer the service."""
    CONNECT_FAILED = 3
    """The service's socket refused the connection or does not exist."""
    CONNECT_TIMEOUT = 4
    """The service's socket did not accept within connect_timeout."""
    OVERLOADED = 5
    """A limit on streams, or on streams opened in a second, was reached at the receiving host."""
    OVER_BUDGET = 6
    """Bytes buffered in the proxy reached limits.memory, or those of one peer limits.memory_per_peer; the stream that
    would have gone over it was reset."""
    PEER_UNREACHABLE = 7
    """No link to any host that offers the service within open_timeout."""
    LINK_LOST = 8
    """The link broke and its session could not go on. Of a link alone: it broke, and its session waits for another."""
    PEER_TIMEOUT = 9
    """The peer answered no ping within ping_timeout."""
    PROTOCOL_ERROR = 10
    """The peer broke the wire specification."""
    DRAINING = 11
    """The host is going away and accepts no new streams."""
    STOPPED = 12
    """The proxy stopped while the stream was open."""
    DUPLICATE = 13
    """Both hosts dialled at once and this link was the one too many."""
    NOT_ALLOWED = 14
    """The receiving host's rules do not allow the caller."""
    WRONG_HOST = 15
    """A link reached another host than the one meant, or came from one that is no peer or cannot prove that it is."""
    IDLE = 16
    """Nothing had used the link for its TTL; the next stream makes a new one."""
    RESUME_TIMEOUT = 17
    """The link was lost, and links.resume_timeout has passed without another one on which the stream could go on."""
    PEER_RESTARTED = 18
    """The link was lost, and the peer's proxy has been started afresh: it knows nothing of the stream any more."""
    REVOKED = 19
    """The control plane has revoked the certificate that the peer showed."""
    LOCAL_SHORTAGE = 20
    """The host that offers the service had no port, descriptor or memory left to connect to it; the service may be
    well."""
    LOOP = 21
    """The call came round in a circle: a service is delivered to an upstream."""
    PEER_GONE = 22
    """The link was lost, and for links.refused_timeout the peer's host has answered that nobody listens there."""
    UNREAD = 23
    """An application is gone, and the other one took nothing of its last words for a minute, or not all in ten."""

    @property
    def label(self) -> str:
        """The name as logs, metrics and CLI write it: ``no_such_service``."""
        return self.name.lower()


OF_APPLICATIONS = frozenset({CloseReason.FINISHED, CloseReason.ABORTED})
"""Reasons for which an application ends a stream, not a proxy."""
