"""What was measured, what the proxy told and what the walk found, put together as two ways of one message."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from control.api.messages import LinkInfo, PeerStatus, Status, UpstreamStatus
from proxy.check.report import Unchecked


class PathLayer(Struct, frozen=True, kw_only=True):
    """An interface, a bridge or rules that every packet of a message passes."""

    name: str
    read: str
    """What was read about it."""
    where: str
    """The network namespace that it is in."""
    costs: str | None = None
    """What a packet pays there that it need not; None: nothing."""
    seen: bool = True
    """False: here the way could not be followed any further, and ``read`` says why."""


class UnixHop(Struct, frozen=True, kw_only=True):
    """Two processes of this machine, joined by a Unix socket whose file is in ``directory``."""

    directory: str
    connect_ms: float
    round_trip_ms: float
    """Of a small message, milliseconds."""


class PathStep(Struct, frozen=True, kw_only=True):
    """One line of a `MessagePath`. ``round_trip_ms`` is None where it cannot be measured from here."""

    name: str
    read: str
    where: str = ""
    costs: str | None = None
    round_trip_ms: float | None = None
    seen: bool = True


class MessagePath(Struct, frozen=True, kw_only=True):
    """The way of a message, step by step. The two times are of different kinds, and only those of one kind may be
    compared.

    ``kernel_ms``: to the far machine's kernel and back (ICMP echo), which wakes nobody. ``round_trip_ms``: the sum of
    what was measured between processes, which have to be woken. None: not measured.
    """

    title: str
    parts: tuple[PathStep, ...]
    kernel_ms: float | None
    round_trip_ms: float | None
    first_byte: str
    """What a new connection waits for before its first byte may go."""


class Explanation(Struct, frozen=True, kw_only=True):
    """The direct way and the one through Hostlane; as JSON, what ``hostlane explain --json`` prints."""

    service: str
    host: str
    peer: str | None
    """The host that the service is called on; None: this one."""
    direct: MessagePath | None
    through: MessagePath
    saved: tuple[str, ...]
    """What Hostlane has saved on this host since its proxy started."""


class ExplanationFacts(Struct, frozen=True, kw_only=True):
    """All that `explain` goes by. ``peer`` and the fields after it are empty for a service of this host."""

    status: Status
    upstream: UpstreamStatus
    unix: UnixHop | Unchecked
    peer: PeerStatus | None = None
    links: tuple[LinkInfo, ...] = ()
    """The links to the peer."""
    direct_to: str = ""
    direct_from: str = "here"
    direct: tuple[PathLayer, ...] = ()
    direct_ms: float | Unchecked | None = None
    carried: tuple[PathLayer, ...] = ()
    """The layers under the link."""
    carried_ms: float | Unchecked | None = None


def chosen(status: Status, upstream: UpstreamStatus) -> PeerStatus | None:
    """The peer to explain: one that is up, before others. None where this host serves the upstream itself."""
    if status.host in upstream.offered_by:
        return None
    peers = {peer.name: peer for peer in status.peers}
    offering = [peers[name] for name in upstream.offered_by if name in peers]
    return next((peer for peer in offering if peer.state == "up"), offering[0] if offering else None)


def explain(facts: ExplanationFacts) -> Explanation:
    """Both ways, and what was saved."""
    return Explanation(
        service=facts.upstream.service,
        host=facts.status.host,
        peer=facts.peer.name if facts.peer else None,
        direct=_direct(facts) if facts.peer else None,
        through=_through(facts),
        saved=tuple(_saved(facts)),
    )


def _direct(facts: ExplanationFacts) -> MessagePath:
    assert facts.peer is not None
    measured = facts.direct_ms if isinstance(facts.direct_ms, float) else None
    answers = facts.direct_ms.why if isinstance(facts.direct_ms, Unchecked) else "where a process would be woken"
    parts = [
        PathStep(name="caller", read="a TCP connection of its own, with state in the kernel at both ends"),
        *(_layer(layer) for layer in facts.direct),
        PathStep(
            name=facts.peer.name,
            read=f"{facts.direct_to}, {answers}",
            seen=measured is not None,
        ),
    ]
    return MessagePath(
        title=f"directly from {facts.direct_from} to {facts.peer.name}, {facts.direct_to}",
        parts=tuple(parts),
        kernel_ms=measured,
        round_trip_ms=None,
        first_byte="a handshake of 1 round trip, with TLS 1.3 of 2, and the same layers for every packet of it",
    )


def _through(facts: ExplanationFacts) -> MessagePath:
    unix = _unix(facts)
    proxy = f"process {facts.status.pid}"
    if facts.peer is None:
        parts = [
            unix,
            PathStep(name=f"proxy of {facts.status.host}", read=f"{proxy}: socket to socket, no frames, no link"),
        ]
        first_byte = "connect() to the Unix socket: no handshake"
    else:
        best = min(facts.links, key=lambda link: link.rtt_ms or 1e9, default=None)
        link = "a link that is open" if best else "and a link, once there is one"
        parts = [
            unix,
            PathStep(name=f"proxy of {facts.status.host}", read=f"{proxy}: an 8-byte header in front, {link}"),
            *(_layer(layer) for layer in facts.carried),
            _link(best, facts.peer),
            PathStep(name=f"proxy of {facts.peer.name}", read="takes the header off, finds the service"),
            _delivered(facts.upstream.service, facts.links),
        ]
        first_byte = (
            "connect() to the Unix socket; the opening travels with the first bytes, nobody waits for an answer"
            if best
            else "connect() to the Unix socket, and for a link: the proxy has to dial one, with its handshake"
        )
    return MessagePath(
        title=f"through Hostlane, {facts.upstream.listen}",
        parts=tuple(parts),
        kernel_ms=facts.carried_ms if isinstance(facts.carried_ms, float) else None,
        round_trip_ms=_sum(parts),
        first_byte=first_byte,
    )


def _unix(facts: ExplanationFacts) -> PathStep:
    if isinstance(facts.unix, Unchecked):
        return PathStep(name="caller", read=f"{facts.upstream.listen}: {facts.unix.why}", seen=False)
    read = f"{facts.upstream.listen}, connect() in {facts.unix.connect_ms:.3f} ms; measured in {facts.unix.directory}"
    return PathStep(name="caller", read=read, round_trip_ms=facts.unix.round_trip_ms)


def _layer(layer: PathLayer) -> PathStep:
    return PathStep(name=layer.name, read=layer.read, where=layer.where, costs=layer.costs, seen=layer.seen)


def _link(link: LinkInfo | None, peer: PeerStatus) -> PathStep:
    if link is None:
        error = f": {peer.last_error}" if peer.last_error else ""
        return PathStep(name="link", read=f"there is none now, {peer.name} is {peer.state}{error}", seen=False)
    pinged = "; not pinged yet" if link.rtt_ms is None else "; a ping, which wakes both proxies"
    read = f"{link.local} to {link.remote}, {link.streams} streams on it, up for {link.age_s:.0f} s{pinged}"
    return PathStep(name=f"link {link.id}", read=read, round_trip_ms=link.rtt_ms)


def _delivered(service: str, links: Sequence[LinkInfo]) -> PathStep:
    """The time from OPEN to OPENED holds one round trip of the link, a connect at the far side, both proxies, and up to
    a millisecond in which the far one waits for something to send along.
    """
    opened = [link for link in links if link.open_ms is not None]
    if not opened:
        return PathStep(
            name=service, read="no stream was opened on these links yet; open one and ask again", seen=False
        )
    link = min(opened, key=lambda link: link.open_ms or 0)
    read = f"heard of it {link.open_ms:.2f} ms after the opening left; the caller did not wait"
    return PathStep(name=service, read=read)


def _saved(facts: ExplanationFacts) -> Iterator[str]:
    status = facts.status
    avoided, streams = status.handshakes_avoided, status.streams_opened
    yield f"{avoided} handshakes avoided by {streams} streams; links open now: {status.sessions}"
    rtts = [link.rtt_ms for link in facts.links if link.rtt_ms is not None]
    if rtts and status.handshakes_avoided:
        seconds = status.handshakes_avoided * min(rtts) / 1000
        yield f"that is {seconds:.3f} s of waiting, at {min(rtts):.3f} ms for a round trip of the link"


def _sum(parts: Sequence[PathStep]) -> float | None:
    measured = [part.round_trip_ms for part in parts if part.round_trip_ms is not None]
    return sum(measured) if measured else None
