"""Descriptors that the proxy may open, against the streams that its configuration allows."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from proxy.check.report import Finding, Line, Passed, Unchecked

BURST = 4096
"""Connections that one upstream's socket queues; a proxy that cannot accept so many does not survive one burst."""
BASE = 64
"""Descriptors that a proxy has anyway: log, epoll, admin socket and its clients, locks; generously."""


class DescriptorFacts(Struct, frozen=True, kw_only=True):
    """The descriptor limit and what counts against it. ``owner``: whose limit it is: a running proxy's, or what one
    would inherit from here.
    """

    owner: str = ""
    limit: int | Unchecked = 0
    open: int | None = None
    """Descriptors open now; None if that cannot be seen."""
    streams_per_link: int | None = None
    """None: there is no configuration."""
    links: int = 0
    """Most links with all peers together."""
    listeners: int = 0


def judge(facts: DescriptorFacts) -> Iterator[Line]:
    """The lines about descriptors."""
    if isinstance(facts.limit, Unchecked):
        yield facts.limit
        return
    now = "" if facts.open is None else f" ({facts.open} open now)"
    read = f"{facts.owner} may open {facts.limit} files{now}"
    needed = BURST if facts.streams_per_link is None else _needed(facts)
    if facts.limit >= needed:
        yield Passed(read)
        return
    wanted = (
        f"; one link full of streams, limits.streams_per_link = {facts.streams_per_link}, takes {needed}"
        if facts.streams_per_link is not None
        else f"; a burst of {BURST} callers is more"
    )
    yield Finding(
        name="few-descriptors",
        level="wrong" if facts.limit < min(needed, BURST) else "note",
        where=facts.owner,
        read=read + wanted,
        cost="a stream takes one descriptor: at the limit the proxy can accept no callers and dial no peer, while a "
        "smaller limits.streams_per_link would refuse streams in good order",
        mend=f"LimitNOFILE={needed} in the proxy's systemd unit, ulimits: {{nofile: {needed}}} in compose, or a "
        "smaller limits.streams_per_link",
    )


def _needed(facts: DescriptorFacts) -> int:
    return (facts.streams_per_link or 0) + facts.links + 2 * facts.listeners + BASE
