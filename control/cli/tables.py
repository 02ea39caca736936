"""What a proxy told, as tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from control.api.messages import (
    CLOCKS_DIFFER,
    BusiestSource,
    ContainerSocket,
    Discovery,
    DoorStatus,
    EdgeInfo,
    LinkInfo,
    PeerStatus,
    Refusal,
    RouteCandidate,
    ServiceRoute,
    Status,
    StreamGroup,
    StreamHolder,
    StreamInfo,
)
from control.base.grid import Block, Facts, Grid, grid

MOST_SOCKETS = 20
"""Rows of sockets of containers, of which a host may have thousands: the busiest ones."""
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")


def status_tables(status: Status) -> list[Block]:
    """The host in one table, then its peers, upstreams and services, where there are any."""
    tables: list[Block] = [_host(status)]
    if status.peers:
        tables.append(_peers(status.peers))
    if status.upstreams:
        rows = [
            (item.service, item.listen, ", ".join(item.offered_by) or "nobody", item.held_back)
            for item in status.upstreams
        ]
        columns = ["upstream", "listen", "offered by", "held back"]
        held_back = any(item.held_back for item in status.upstreams)
        shown = 4 if held_back else 3
        tables.append(grid(columns[:shown], [row[:shown] for row in rows], ["listen"], columns[shown - 1]))
    if (connect := status.connect) is not None:
        names = "all" if connect.services is None else ", ".join(connect.services) or "none"
        row = (connect.listen, names, str(connect.open), connect.held_back)
        columns = ["connect", "services", "open>", "held back"]
        shown = 4 if connect.held_back else 3
        tables.append(grid(columns[:shown], [row[:shown]], words="services"))
    if status.door is not None and status.door.sockets:
        tables.append(_sockets(status.door.sockets))
    if status.services:
        services = [(item.name, item.deliver, str(item.streams)) for item in status.services]
        tables.append(grid(["service", "deliver", "streams>"], services, words="deliver"))
    return tables


def links_table(links: Sequence[LinkInfo]) -> Grid:
    """One row a link."""
    columns = [
        "link", "peer", "direction", "local", "remote", "streams>", "age>", "idle>", "rtt>", "sent>", "received>",
        "unacked>", "congested", "ttl>", "why",
    ]  # fmt: skip
    least = [
        "unacked", "congested", "local", "idle", "age", "received", "sent", "remote", "direction", "ttl", "rtt",
    ]  # fmt: skip
    return grid(columns, [
        (
            link.id, link.peer, link.direction, link.local, link.remote, str(link.streams), span(link.age_s),
            span(link.idle_s), "-" if link.rtt_ms is None else f"{link.rtt_ms:.2f} ms", amount(link.bytes_sent),
            amount(link.bytes_received), amount(link.unacked), "yes" if link.congested else "no",
            "-" if link.ttl_s is None else span(link.ttl_s),
            _why(link),
        )
        for link in links
    ], least, words="why")  # fmt: skip


def route_tables(route: ServiceRoute) -> list[Block]:
    """Where a new stream for a service would go, then one row a host that offers it."""
    takes = " or ".join(route.takes) or "nobody"
    allowed = "; ".join(route.allow) or "everybody in the mesh"
    summary = Facts([
        ("service", route.service),
        ("called through", route.listen or "no socket on this host"),
        ("a new stream goes to", takes),
        ("because", route.why),
        *([("delivered here to", route.deliver), ("who may call it here", allowed)] if route.deliver else []),
    ])  # fmt: skip
    blocks: list[Block] = [summary]
    if route.refused:
        blocks.append(_refused_table(route.refused))
    if not route.candidates:
        return blocks
    rows = [
        (
            each.host, each.address, "this host" if each.state == "here" else each.state, str(each.streams),
            "-" if each.ejected_for_s is None else f"for {span(each.ejected_for_s)}", f"{each.failures:g}",
            "configuration" if each.static else _source(each), each.last_error or "-",
        )
        for each in route.candidates
    ]  # fmt: skip
    columns = ["host", "address", "state", "streams>", "ejected", "failures>", "known from", "last error"]
    least = ["failures", "known from", "ejected", "streams", "address"]
    return [summary, grid(columns, rows, least, words="last error"), *blocks[1:]]


def _refused_table(refused: Sequence[Refusal]) -> Grid:
    """Who may not call the service here, a row for each caller."""
    rows = [
        (
            each.caller or ("unknown" if each.uid is None else f"uid {each.uid}"), each.host, str(each.times),
            f"{span(each.first_s)} ago", f"{span(each.last_s)} ago", each.reason, each.rule,
        )
        for each in refused
    ]  # fmt: skip
    columns = ["refused", "on", "times>", "first>", "last>", "reason", "by"]
    return grid(columns, rows, ["reason", "first"], words="by")


def _why(link: LinkInfo) -> str:
    if link.suspended_s is not None:
        return f"suspended for {span(link.suspended_s)}: {link.suspended_why}"
    why = "leaving" if link.leaving else link.ttl_reason or "the peer decides"
    return f"{why} (resumed {link.resumed} times)" if link.resumed else why


def streams_table(streams: Sequence[StreamInfo]) -> Grid:
    """One row a stream."""
    columns = [
        "stream", "service", "direction", "peer", "link", "state", "uid>", "pid>", "age>", "sent>", "received>",
        "credit>", "buffered>",
    ]  # fmt: skip
    least = ["credit", "buffered", "link", "stream", "received", "sent", "age", "direction"]
    return grid(columns, [
        (
            stream.id, stream.service, stream.direction, stream.peer or "-", stream.link or "-",
            f"{stream.state}, suspended" if stream.suspended else stream.state, _or_dash(stream.uid),
            _or_dash(stream.pid), span(stream.age_s),
            amount(stream.bytes_sent), amount(stream.bytes_received), amount(stream.credit), amount(stream.buffered),
        )
        for stream in streams
    ], least, words="service")  # fmt: skip


def edges_table(edges: Sequence[EdgeInfo]) -> Grid:
    """One row an edge."""
    columns = ["caller", "on", "service", "host", "streams>", "opened>", "sent>", "received>", "errors>", "last error"]
    least = ["opened", "streams", "on", "sent", "received"]
    return grid(columns, [
        (
            edge.caller, edge.caller_host, edge.service, edge.host or "-", str(edge.streams), rate(edge.opened_per_s),
            f"{amount(edge.sent_per_s)}/s", f"{amount(edge.received_per_s)}/s", str(edge.failed), _failing(edge),
        )
        for edge in edges
    ], least, words="last error")  # fmt: skip


def _failing(edge: EdgeInfo) -> str:
    if edge.reason is None:
        return "-"
    return edge.reason if edge.failing_s is None else f"{edge.reason}, for {span(edge.failing_s)}"


def rate(per_second: float) -> str:
    """0.25 as ``0.2/s``, 1234.5 as ``1,234/s``."""
    return f"{per_second:.1f}/s" if 0 < per_second < 10 else f"{per_second:,.0f}/s"


def groups_table(groups: Sequence[StreamGroup], by: Sequence[str]) -> Grid:
    """One row for the streams that have something in common."""
    return grid([*by, "streams>", "sent>", "received>", "buffered>", "oldest>"], [
        (
            *(_or_dash(group.by.get(name)) for name in by), f"{group.streams}", amount(group.bytes_sent),
            amount(group.bytes_received), amount(group.buffered), span(group.oldest_s),
        )
        for group in groups
    ], least=["buffered", "oldest", "received", "sent"], words=by[0])  # fmt: skip


def _or_dash(value: str | int | None) -> str:
    return "-" if value is None else str(value)


def holders_table(holders: Sequence[StreamHolder]) -> Grid:
    """One row for whoever keeps streams open."""
    return grid(["service", "direction", "peer", "uid>", "pid>", "streams>"], [
        (
            holder.service, holder.direction, holder.peer or "-", _or_dash(holder.uid), _or_dash(holder.pid),
            str(holder.streams),
        )
        for holder in holders
    ])  # fmt: skip


def amount(count: float) -> str:
    """1536 as ``1.5 KiB``."""
    value = float(count)
    for unit in _SIZES:
        if abs(value) < 1024 or unit == _SIZES[-1]:
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def span(seconds: float) -> str:
    """75.2 as ``1m15s``: two units, as much as a person compares."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours}h"
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _host(status: Status) -> Facts:
    process = (
        f"version {status.version} ({status.core}), pid {status.pid}, up {span(status.uptime_s)}, "
        f"security {status.security}"
    )
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(status.refused_by_reason.items()))
    refused = f"{status.streams_refused} refused" + (f" ({reasons})" if reasons else "")
    aborted = f"{status.streams_aborted} aborted, " if status.streams_aborted else ""
    rows = [
        ("host", status.host),
        ("proxy", process),
        ("sessions", str(status.sessions)),
        ("streams", f"{status.streams} open, {status.streams_opened} opened, {aborted}{refused}"),
        ("memory", f"{amount(status.memory_used)} of {amount(status.memory_limit)}"),
        ("handshakes avoided", str(status.handshakes_avoided)),
    ]
    if status.busy_poll != "off":
        share = status.busy_poll_s / max(status.uptime_s, 1)
        rows.insert(5, ("busy poll", f"{status.busy_poll}, {share:.1%} of a core so far"))
    if (source := status.busiest) is not None:
        rows.insert(4, ("busiest source", f"{_source_of(source)}: {source.streams} streams of {source.service}"))
    if status.draining:
        rows.insert(2, ("draining", f"takes no more calls; ends in {span(status.drain_left_s or 0)} at the latest"))
    rows += [("waits for a link", _suspension(peer)) for peer in status.peers if peer.suspended]
    if status.access_lost:
        rows.append(("access log", f"{status.access_lost} lines were lost"))
    if status.config_stale:
        rows.append(("configuration", status.config_stale))
    if status.record_stopped:
        rows.append(("pool.record", f"stopped: {status.record_stopped}"))
    rows += [("namesake", line) for line in status.namesakes]
    rows += [("missing", line) for line in status.missing]
    rows += [("cannot accept", line) for line in status.cannot_accept]
    if status.door is not None:
        rows += _door(status.door)
    if status.control is not None:
        rows += _discovery(status.control)
    return Facts(rows)


def _door(door: DoorStatus) -> list[tuple[str, str]]:
    """Whether the door is there, and how much containers have by it."""
    if door.connected:
        state = f"connected for {span(door.for_s)}"
    else:
        state = f"away for {span(door.for_s)}: {door.error or 'no answer yet'}"
    containers = {each.container for each in door.sockets} | {each.container for each in door.offers}
    counts = f"containers: {len(containers)}, sockets: {len(door.sockets)}, offers: {len(door.offers)}"
    more = len(door.problems) - MOST_SOCKETS
    problems = [*door.problems[:MOST_SOCKETS], *([f"and {more} more (--json)"] if more > 0 else [])]
    return [("door", f"{state}; {counts}"), *(("socket missing", line) for line in problems)]


def _sockets(sockets: Sequence[ContainerSocket]) -> Grid:
    """Where containers call, the busiest first."""
    shown = sorted(sockets, key=lambda each: -each.streams)[:MOST_SOCKETS]
    rows = [(each.container, each.caller or "-", each.service, each.listen, str(each.streams)) for each in shown]
    if more := len(sockets) - len(shown):
        rest = sum(each.streams for each in sockets) - sum(each.streams for each in shown)
        rows.append((f"{more} more (--json)", "-", "-", "-", str(rest)))
    return grid(["container", "caller", "calls", "listen", "streams>"], rows, ["listen", "caller"], words="container")


def _source_of(found: BusiestSource) -> str:
    if found.address is not None:
        return found.address
    if found.uid is None:
        return "unknown"
    return f"uid {found.uid}" if found.pid is None else f"pid {found.pid}, uid {found.uid}"


def _suspension(peer: PeerStatus) -> str:
    """What waits for another link to a peer, and for how long it still does."""
    since, left = span(peer.suspended_s or 0), span(peer.suspended_left_s or 0)
    kept = f"{peer.suspended_streams} streams, {amount(peer.suspended_bytes)}"
    return f"{peer.name}: {kept}, for {since}; {left} left"


def _source(candidate: RouteCandidate) -> str:
    if candidate.state == "here":
        return "-"
    return "control plane, unconfirmed" if candidate.unconfirmed else "control plane"


def _discovery(found: Discovery) -> list[tuple[str, str]]:
    """How the proxy follows the control plane, a row for each thing worth knowing."""
    heard = "never heard" if found.age_s is None else f"heard {span(found.age_s)} ago"
    names = ", ".join(found.unconfirmed)
    kept = f", {len(found.unconfirmed)} of them unconfirmed: {names}" if names else ""
    if found.server is not None:
        follows = f"following {found.server}, {heard}"
    else:
        follows = f"not reached, {heard}: {found.last_error or 'no answer yet'}"
    source = " (from disk)" if found.from_disk else ""
    registered = "yes" if found.registered else f"no: {found.registration_error or 'no answer yet'}"
    namesake = f"{found.namesake} wants to be this host too, and is refused"
    return [
        ("control plane", follows),
        ("map", f"revision {found.revision}, {found.hosts} hosts{kept}{source}"),
        ("registered", registered),
        *((("namesake", namesake),) if found.namesake else ()),
        *((("certificate", f"not renewed: {found.renewal_error}"),) if found.renewal_error else ()),
        *_clock(found.clock_ahead_s),
        *(("left out", f"{name}: {why}") for name, why in sorted(found.left_out.items())),
    ]


def _clock(ahead: float | None) -> list[tuple[str, str]]:
    """Whether it is another one than the control server's."""
    if ahead is None or abs(ahead) < CLOCKS_DIFFER:
        return []
    return [("clock", f"{span(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} the control server's")]


def _peers(peers: Iterable[PeerStatus]) -> Grid:
    rows = []
    for peer in peers:
        retry = "-" if peer.retry_in_s is None else span(peer.retry_in_s)
        links = f"{peer.links} + {peer.suspended} suspended" if peer.suspended else str(peer.links)
        rate = "" if peer.opens_per_second is None else f" (takes {peer.opens_per_second:,}/s)"
        counts = (links, str(peer.streams), f"{peer.waiting}{rate}", str(peer.warm), str(peer.ahead))
        held, state = amount(peer.memory_used), "idle" if peer.idle else peer.state
        rows.append((peer.name, peer.address, state, *counts, held, retry, peer.last_error or "-"))
    counted = ["links>", "streams>", "waiting>", "warm>", "ahead>", "memory>"]
    least = ["ahead", "warm", "memory", "waiting", "address", "links", "retry in"]
    return grid(["peer", "address", "state", *counted, "retry in>", "last error"], rows, least, words="last error")
