"""Every metric of a proxy. Names and labels are the public face: docs/metrics.md lists them, a test compares the two,
and a change needs a line in CHANGELOG.md.
"""

from __future__ import annotations

from typing import Final

from control.base.exposition import Family
from proxy.errors import CloseReason
from proxy.pool.peercounts import HANDSHAKE_SECONDS
from proxy.pump.loop import LONG_TURNS
from proxy.pump.streamcounts import SECONDS

REASONS: Final = tuple(reason.label for reason in CloseReason)
CLOSED: Final[dict[str, tuple[str, ...]]] = {
    "direction": ("outbound", "inbound", "local"),
    "reason": REASONS,
    "cause": ("credit", "link", "reader"),
    "outcome": ("ok", "failed"),
    "state": ("usable", "ejected", "unreachable"),
    "result": ("applied", "refused", "wrong"),
    "core": ("compiled", "python"),
}
"""The values that labels have whose values do not come from the configuration."""
OF_LABELS: Final = frozenset({"service", "peer"})
"""Labels whose values are bounded by ``telemetry.max_series``."""

_STREAM = ("service", "peer", "direction")

# Streams
STREAMS_OPENED = Family(
    "hostlane_streams_opened",
    "counter",
    "Streams that callers of this host, or peers, have opened.",
    ("service", "direction"),
)
STREAMS_ENDED = Family("hostlane_streams_ended", "counter", "Streams that have ended.", (*_STREAM, "reason"))
STREAMS_OPEN = Family("hostlane_streams_open", "gauge", "Streams that something carries now.", _STREAM)
STREAMS_WAITING = Family("hostlane_streams_waiting", "gauge", "Calls that wait for a link to a peer.", ("peer",))
STREAM_RETRIES = Family(
    "hostlane_stream_retries",
    "counter",
    "Calls that a peer did not take and that went on.",
    ("service", "peer", "reason"),
)
STREAM_SENT = Family("hostlane_stream_sent_bytes", "counter", "Payload sent by callers, or services.", _STREAM, "bytes")
STREAM_RECEIVED = Family(
    "hostlane_stream_received_bytes", "counter", "Payload sent to callers, or services.", _STREAM, "bytes"
)
STREAM_WAIT = Family(
    "hostlane_stream_wait_seconds", "histogram", "From accept until a link carries the call.", ("service",), "seconds"
)
STREAM_OPEN = Family(
    "hostlane_stream_open_seconds", "histogram", "From OPEN until the host has delivered it.", ("service",), "seconds"
)
STREAM_FIRST_BYTE = Family(
    "hostlane_stream_first_byte_seconds",
    "histogram",
    "From accept to the first byte of the answer.",
    ("service",),
    "seconds",
)
SERVICE_CONNECT = Family(
    "hostlane_service_connect_seconds",
    "histogram",
    "Until a service here has taken a peer's stream.",
    ("service",),
    "seconds",
)
STREAM_STALLED = Family(
    "hostlane_stream_stalled_seconds",
    "counter",
    "Time in which streams could not go on.",
    (*_STREAM, "cause"),
    "seconds",
)

# Links
LINKS = Family("hostlane_links", "gauge", "Links that are up.", ("peer",))
LINKS_SUSPENDED = Family("hostlane_links_suspended", "gauge", "Sessions that have lost their link.", ("peer",))
LINKS_ENDED = Family("hostlane_links_ended", "counter", "Links that have ended.", ("peer", "reason"))
SESSIONS_RESUMED = Family("hostlane_sessions_resumed", "counter", "Sessions that went on over another link.", ("peer",))
HANDSHAKES = Family("hostlane_handshakes", "counter", "Handshakes that are over.", ("peer", "direction", "outcome"))
HANDSHAKE = Family(
    "hostlane_handshake_seconds", "histogram", "Of handshakes dialled here that came off.", ("peer",), "seconds"
)
HANDSHAKES_AVOIDED = Family(
    "hostlane_handshakes_avoided", "counter", "Streams that found a link and waited for none.", ("peer",)
)
LINK_SENT = Family("hostlane_link_sent_bytes", "counter", "Bytes sent on links, frames and all.", ("peer",), "bytes")
LINK_RECEIVED = Family("hostlane_link_received_bytes", "counter", "Bytes of whole frames received.", ("peer",), "bytes")
LINK_RESENT = Family(
    "hostlane_link_resent_bytes", "counter", "Bytes to send again on another link.", ("peer",), "bytes"
)
LINK_SENDS = Family("hostlane_link_sends", "counter", "System calls that sent frames.", ("peer",))
LINK_FRAMES = Family("hostlane_link_frames", "counter", "Frames written.", ("peer",))
LINK_UNACKED = Family(
    "hostlane_link_unacked_bytes", "gauge", "Bytes that a peer has not acknowledged.", ("peer",), "bytes"
)
LINK_RTT = Family("hostlane_link_rtt_seconds", "gauge", "Round trip of the last ping.", ("peer",), "seconds", most=True)
LINK_QUEUED = Family(
    "hostlane_link_queued_ratio", "gauge", "Part of the last second with bytes waiting.", ("peer",), "ratio", most=True
)
LINK_RETRANSMITS = Family("hostlane_link_tcp_retransmits", "counter", "TCP segments sent again.", ("peer",))
LINK_TTL = Family(
    "hostlane_link_ttl_seconds", "gauge", "How long an idle link is kept.", ("peer",), "seconds", most=True
)

# Routing
PEER_UP = Family("hostlane_peer_up", "gauge", "1: a link is up that takes streams.", ("peer",), most=True)
UPSTREAM_HOSTS = Family(
    "hostlane_upstream_hosts", "gauge", "Hosts that offer the service.", ("service", "state"), most=True
)
UPSTREAM_BACKLOG = Family(
    "hostlane_upstream_backlog",
    "gauge",
    "Callers in the kernel's queue of an upstream's socket.",
    ("service",),
    most=True,
)

# Process
PUMP_TURN = Family("hostlane_pump_turn_seconds", "histogram", "What one turn of the pump took.", (), "seconds")
PUMP_BUSY = Family("hostlane_pump_busy_seconds", "counter", "What all turns together took.", (), "seconds")
MEMORY_USED = Family("hostlane_memory_used_bytes", "gauge", "Bytes buffered, of limits.memory.", (), "bytes")
MEMORY_LIMIT = Family("hostlane_memory_limit_bytes", "gauge", "limits.memory.", (), "bytes")
RESIDENT = Family("hostlane_resident_memory_bytes", "gauge", "Memory that the process has.", (), "bytes")
CPU = Family("hostlane_cpu_seconds", "counter", "CPU time of the process.", (), "seconds")
DESCRIPTORS = Family("hostlane_descriptors_used", "gauge", "Open descriptors.", ())
DESCRIPTORS_LIMIT = Family("hostlane_descriptors_limit", "gauge", "Descriptors that there may be.", ())
STARTED = Family("hostlane_start_time_seconds", "gauge", "When the process began, Unix time.", (), "seconds", most=True)
RELOADS = Family("hostlane_config_reloads", "counter", "Reloads of the configuration.", ("result",))
RELOADED = Family(
    "hostlane_config_reload_time_seconds", "gauge", "When it was applied last, Unix time.", (), "seconds", most=True
)
CERTIFICATE = Family(
    "hostlane_certificate_expiry_time_seconds",
    "gauge",
    "When this host's certificate expires, Unix time.",
    (),
    "seconds",
    most=True,
)
CONTROL_CONNECTED = Family(
    "hostlane_control_connected", "gauge", "1: a control server's map is being followed.", (), most=True
)
MAP_AGE = Family(
    "hostlane_map_age_seconds", "gauge", "Since a control server was heard last.", (), "seconds", most=True
)
DRAINING = Family("hostlane_draining", "gauge", "Processes of this host that end with their streams.", ())
BUILD = Family("hostlane_build", "info", "What runs.", ("version", "core", "python"))

OF_ALL_PROCESSES: Final = frozenset(
    {
        STREAMS_OPEN, STREAMS_WAITING, LINKS, LINKS_SUSPENDED, LINK_UNACKED, LINK_RTT, LINK_QUEUED, MEMORY_USED,
        MEMORY_LIMIT, RESIDENT, DESCRIPTORS, DESCRIPTORS_LIMIT, DRAINING,
    }
)  # fmt: skip
"""Gauges that are added up of all processes of this host. The others are those of the one that accepts."""
BOUNDS: Final = {
    **{family.name: SECONDS for family in (STREAM_WAIT, STREAM_OPEN, STREAM_FIRST_BYTE, SERVICE_CONNECT)},
    HANDSHAKE.name: HANDSHAKE_SECONDS,
    PUMP_TURN.name: LONG_TURNS,
}
"""Of the buckets of histograms."""
ALL: Final = tuple(value for value in list(globals().values()) if isinstance(value, Family))
"""In the order of a scrape."""
