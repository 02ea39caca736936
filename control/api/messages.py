"""What a proxy tells about itself over its admin socket, as JSON.

Decoding ignores fields it does not know, so that a command line and a proxy of different versions understand each
other: fields may be added, with a default, and never change their meaning. Times are in seconds unless
the name says ``_ms``.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

CLOCKS_DIFFER = 60.0
"""Seconds by which a host's clock and a control server's may differ before that is said: answers take some of them."""

PeerState = Literal["up", "dialling", "down"]
Direction = Literal["dialled", "accepted"]
StreamDirection = Literal["outbound", "inbound", "local"]
Core = Literal["compiled", "python"]


class PeerStatus(Struct, frozen=True, kw_only=True):
    """Another host, seen from this one. Waiting streams are those that wait for a link.

    ``memory_used`` are bytes held for local sockets that do not take them.
    """

    name: str
    address: str
    state: PeerState
    links: int
    streams: int
    waiting: int
    last_error: str | None = None
    retry_in_s: float | None = None
    memory_used: int = 0
    suspended: int = 0
    """Sessions that have lost their link and wait for another one."""
    suspended_streams: int = 0
    suspended_bytes: int = 0
    """Memory that those sessions keep for what their streams have written."""
    suspended_s: float | None = None
    """How long the one of them that has waited longest has waited; None: none waits."""
    suspended_left_s: float | None = None
    """In how many seconds the first of them ends if no link comes."""
    resumed: int = 0
    """How often a session has gone on over another link, since the start."""
    idle: bool = False
    """Down, because nothing used its last link, or nothing has called it yet; the next stream makes a new one."""
    warm: int = 0
    """Streams of this host that found a link, ``ahead`` of them one that had been opened for them."""
    ahead: int = 0
    handshakes: int = 0
    """Handshakes that this host has begun, those that failed included."""
    ttl_s: float | None = None
    """How long a link to it is kept without a stream, and why, in words."""
    ttl_reason: str = ""
    opens_per_second: int | None = None
    """Streams a second that it takes from this host, beyond which they wait; None: as many as come."""


class UpstreamStatus(Struct, frozen=True, kw_only=True):
    """A service that containers on this host call. ``offered_by`` are names of hosts, this one perhaps among them.
    ``held_back``: why its callers wait longer than those of others, empty where they do not.
    """

    service: str
    listen: str
    offered_by: list[str]
    held_back: str = ""


class ConnectStatus(Struct, frozen=True, kw_only=True):
    """The socket where callers name the service (HTTP CONNECT). ``services``: those that it leads to; None: all of the
    mesh. ``open``: connections from there. ``held_back``: as of an upstream.
    """

    listen: str
    services: list[str] | None
    open: int
    held_back: str = ""


class ServiceStatus(Struct, frozen=True, kw_only=True):
    """A service that this host offers."""

    name: str
    deliver: str
    streams: int


class ContainerSocket(Struct, frozen=True, kw_only=True):
    """Where a container calls a service, by its label: a listener inside its network namespace, or a Unix socket in the
    directory that it has mounted. ``caller``: the name that its calls bear; empty: none. ``streams``: calls that are
    open there; about so many where there are thousands.
    """

    container: str
    caller: str
    service: str
    listen: str
    streams: int


class ContainerOffer(Struct, frozen=True, kw_only=True):
    """A service that a container offers by its label. ``deliver``: the address inside it."""

    container: str
    service: str
    deliver: str


class DoorStatus(Struct, frozen=True, kw_only=True):
    """What containers have by their labels. ``connected``: the door is there, and has said what there is; ``for_s``:
    for how long it has been so, or has been away. ``error``: why it is away.
    """

    connected: bool
    for_s: float
    error: str
    sockets: list[ContainerSocket]
    offers: list[ContainerOffer]
    """Those that are in force."""
    problems: list[str] = []
    """A line for each Unix socket of a container that could not be had."""


class BusiestSource(Struct, frozen=True, kw_only=True):
    """The caller on this host that has most calls of one service open, and how many; about so many where there are
    thousands of calls. ``uid`` and ``pid`` are of a caller through a Unix socket, ``address`` of one through TCP.
    """

    service: str
    streams: int
    uid: int | None = None
    pid: int | None = None
    address: str | None = None


class Discovery(Struct, frozen=True, kw_only=True):
    """How a proxy follows the control plane.

    ``server`` is the one that it listens to; None: none, because of ``last_error``. ``age_s``: since the control plane
    was last heard; None: never. ``from_disk``: what is followed is the last map of an earlier process. ``unconfirmed``
    are hosts that the control plane does not know, and that are kept for now. ``left_out``: what of the map cannot be
    used, and why, by host or service.
    """

    servers: list[str]
    server: str | None
    last_error: str | None
    epoch: str
    revision: int
    age_s: float | None
    from_disk: bool
    hosts: int
    unconfirmed: list[str]
    registered: bool
    registration_error: str | None
    left_out: dict[str, str]
    barred: bool = False
    """The control plane refuses this host's certificate, it is revoked, say: ``registration_error`` says why."""
    displaced: bool = False
    """Another proxy is registered as this host: ``registration_error`` says where it is, unless this host is barred as
    well."""
    namesake: str | None = None
    """Where another proxy is that wanted to be this host lately, and was refused."""
    renewal_error: str | None = None
    """Why this host's certificate, for which it is time, could not be renewed at the last try; None: it could, or there
    is time."""
    clock_ahead_s: float | None = None
    """By how much this host's clock was ahead of the control server's when that last answered, seconds that the answer
    took included; negative: behind it. None: it has not said."""


class Status(Struct, frozen=True, kw_only=True):
    """``GET /status``. Memory is bytes; opened, aborted, refused and avoided are counted since the start.

    ``streams_aborted``: by applications. ``refused_by_reason`` is ``streams_refused`` by close reason.
    """

    host: str
    pid: int
    version: str
    uptime_s: float
    security: str
    sessions: int
    streams: int
    memory_used: int
    memory_limit: int
    streams_opened: int
    streams_refused: int
    handshakes_avoided: int
    peers: list[PeerStatus]
    upstreams: list[UpstreamStatus]
    services: list[ServiceStatus]
    streams_aborted: int = 0
    refused_by_reason: dict[str, int] = {}
    draining: bool = False
    """Told to stop: it takes no more calls and waits for its streams, for ``drain_left_s`` more."""
    drain_left_s: float | None = None
    connect: ConnectStatus | None = None
    """None: there is no such socket."""
    door: DoorStatus | None = None
    """None: labels of containers mean nothing here."""
    control: Discovery | None = None
    """None: the mesh is what the configuration says."""
    busiest: BusiestSource | None = None
    """None: no call is open."""
    namesakes: list[str] = []
    """A line for each peer that has links with another proxy of this host's name, too."""
    busy_poll: str = "off"
    """Whether the loop looks for work before it sleeps, and for how long."""
    busy_poll_s: float = 0.0
    """CPU time that it has spent so since the start; what was found at the first look has cost none."""
    missing: list[str] = []
    """A line for each upstream's socket whose file is gone and could not be bound again at the last look, 5 s ago at
    most."""
    cannot_accept: list[str] = []
    """A line for each listening socket, that of the links included, at which this machine could not accept a connection
    at the last try, with the reason. It tries ten times a second."""
    config_stale: str = ""
    """Why changes of the configuration file cannot be seen: the proxy's is a mount of one file, which has been replaced
    where it comes from. Empty: they can, at the last look, 5 s ago at most."""
    record_stopped: str = ""
    """Why nothing could be written to ``pool.record`` at the last try; empty: it could."""
    access_lost: int = 0
    """Lines of the access log that found no place in its queue or file, since the start."""
    core: Core = "python"
    """What moves the bytes: the modules of the core as C extensions, or as they are."""


class LinkInfo(Struct, frozen=True, kw_only=True):
    """An item of ``GET /links``: a link that is up, or the last one of a session that waits for another.

    ``unacked`` are bytes sent that the peer has not acknowledged; ``congested``: local sockets are not read for now;
    ``open_ms``: from this host's OPEN until the peer had delivered the stream, for the last one.
    """

    id: str
    peer: str
    direction: Direction
    local: str
    remote: str
    streams: int
    age_s: float
    idle_s: float
    rtt_ms: float | None
    bytes_sent: int
    bytes_received: int
    unacked: int
    congested: bool
    open_ms: float | None = None
    leaving: bool = False
    """Takes no more streams."""
    bulk: bool = False
    queueing: float = 0.0
    """Part of the last second or so in which bytes waited for it."""
    ttl_s: float | None = None
    """How long it is kept without a stream, and why; None: the peer, which dialled it, decides."""
    ttl_reason: str = ""
    resumed: int = 0
    """How often its session has gone on over another link."""
    suspended_s: float | None = None
    """How long its session has been waiting for another link, since this one was lost; None: it is up."""
    suspended_why: str = ""
    opened_why: str = ""
    """Why this host has dialled a first or another one, when it began; empty: the peer did, or it is not known."""
    silent_s: float | None = None
    """How long the peer's host has acknowledged nothing, though TCP sends it again; None: it does, or need not."""


class StreamInfo(Struct, frozen=True, kw_only=True):
    """An item of ``GET /streams``. ``link`` is None while the stream waits for one and within one host.

    ``credit`` is what the other side still allows this one to send, ``buffered`` what this proxy holds for it (bytes).
    """

    id: str
    link: str | None
    service: str
    direction: StreamDirection
    peer: str | None
    state: str
    age_s: float
    bytes_sent: int
    bytes_received: int
    credit: int
    buffered: int
    shared_id: str | None = None
    """The same on both hosts, as in the access log; None within one host, and while it waits."""
    uid: int | None = None
    """User and process of the local caller, where that came through a Unix socket of this host."""
    pid: int | None = None
    suspended: bool = False
    """Its session waits for another link."""


class StreamGroup(Struct, frozen=True, kw_only=True):
    """An item of what ``hostlane streams --by`` prints: streams that have something in common, and what that is."""

    by: dict[str, str | int | None]
    streams: int
    bytes_sent: int
    bytes_received: int
    buffered: int
    oldest_s: float


class VersionInfo(Struct, frozen=True, kw_only=True):
    """What ``hostlane version --json`` prints. ``commit``: None if nobody knows; ``turn``: the module that moves the
    bytes."""

    version: str
    commit: str | None
    core: Core
    turn: Core
    python: str
    executable: str
    openssl: str
    kernel: str
    libraries: dict[str, str]


class NewToken(Struct, frozen=True, kw_only=True):
    """What ``hostlane token create --json`` prints; ``expires``: seconds since 1970. The token is in ``token`` or, with
    --out, in ``file``."""

    id: str
    host: str
    expires: float
    token: str | None
    file: str | None = None


class NewCertificate(Struct, frozen=True, kw_only=True):
    """An item of what ``hostlane certificates new --json`` prints: files, and seconds since 1970."""

    host: str
    uri: str
    certificate: str
    key: str
    ca: str
    expires: float


class CallResult(Struct, frozen=True, kw_only=True):
    """What ``hostlane call --json`` prints. Times are since the call began, as the command sees them, which looks every
    few milliseconds. ``reason``: why it was not delivered, or what went wrong then.
    """

    service: str
    listen: str
    delivered: bool
    """Whether a service has taken the stream."""
    connect_ms: float | None = None
    """The upstream's socket had taken the connection."""
    wait_ms: float | None = None
    """The stream had a link, or a service of this host."""
    open_ms: float | None = None
    """A service had taken it; null: its first byte came before that was seen, or it was not delivered."""
    first_byte_ms: float | None = None
    stream: str | None = None
    peer: str | None = None
    link: str | None = None
    sent: int = 0
    received: int = 0
    ended: bool = False
    """Whether the service has ended the stream."""
    reason: str = ""
    answer: str | None = None


class EdgeInfo(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An edge: a caller and a service, with the hosts that they are on. Streams and bytes are counted since the proxy
    has known it; rates are those of the last seconds.

    ``caller``: the calling service where that is known, else ``uid N``, or ``unknown``; ``other``: several that are
    not told apart. ``host``: that offers the service; None: no host took the streams. ``direction``: seen from the
    host that tells. ``sent`` is what the caller has sent, ``received`` what it got.
    """

    caller: str
    caller_host: str
    service: str
    host: str | None
    direction: StreamDirection
    streams: int
    """Open now."""
    opened: int
    """Offered to ``host`` so far; one that it refuses, and that goes on to another host, counts there, too."""
    failed: int
    """Those of them that were not delivered, or that a proxy ended."""
    sent: int
    received: int
    opened_per_s: float
    failed_per_s: float
    sent_per_s: float
    received_per_s: float
    reason: str | None = None
    """Close reason of the last one that failed."""
    stalled: int = 0
    """Open streams that are held back now, ``stalled_s`` the longest of them, and by what: ``credit`` (the application
    at the other host does not read), ``link``, or ``reader`` (the one on the host that tells)."""
    stalled_by: str | None = None
    stalled_s: float = 0.0
    failing_s: float | None = None
    """Since the first that failed after the last that was delivered; None: the last one was delivered."""


class Edges(Struct, frozen=True, kw_only=True):
    """``GET /edges`` of a proxy: those of its host, the busiest first. ``GET /v1/edges`` of a control server: of each
    host the busiest ones.

    ``missing``: hosts, and control servers, that have told nothing, and why.
    """

    edges: list[EdgeInfo]
    missing: dict[str, str] = {}


def busiest(edge: EdgeInfo) -> tuple[float, float, int, str, str]:
    """The order in which edges are told: those that fail first, then by bytes and streams a second, then by name."""
    rate = edge.sent_per_s + edge.received_per_s + edge.opened_per_s
    return (-edge.failed_per_s, -rate, -edge.streams, edge.service, edge.caller)


class ReloadResult(Struct, frozen=True, kw_only=True):
    """The answer to ``POST /reload``: what became of the configuration file.

    ``possible``: it could be applied, and was only asked about. ``wrong``: the file is; ``refused``: the running proxy
    cannot follow it; nothing has changed in either case, and ``problems`` has a line for each reason. ``changes`` has a
    line for each key that is, or would be, different.
    """

    outcome: Literal["applied", "possible", "wrong", "refused"]
    changes: list[str] = []
    problems: list[str] = []


class HealthAnswer(Struct, frozen=True, kw_only=True):
    """The answer to ``GET /alive``, ``/ready`` or ``/mesh``: HTTP status 200 if ``ok``, else 503, and why not."""

    ok: bool
    problems: list[str] = []


class StreamHolder(Struct, frozen=True, kw_only=True):
    """Who keeps streams open, in a proxy that drains. ``uid`` and ``pid`` as in `StreamInfo`."""

    service: str
    direction: StreamDirection
    peer: str | None
    uid: int | None
    pid: int | None
    streams: int


class DrainProgress(Struct, frozen=True, kw_only=True):
    """A line of the answer to ``POST /drain``, which goes on until the proxy ends.

    ``cut`` counts the streams that did not finish in time, ``closed_quiet`` those that were ended as nothing moved in
    them; ``over``: nothing is open any more, this is the last line.
    """

    left_s: float
    streams: int
    cut: int
    closed_quiet: int = 0
    over: bool
    holders: list[StreamHolder]


class RouteCandidate(Struct, frozen=True, kw_only=True):
    """A host that offers a service, as the choice for a new stream sees it.

    ``state``: ``here`` is this host; ``idle``: no link, because nothing used the last one. ``ejected_for_s``: so long
    it is left alone for opens that failed; ``failures``: counted since, or towards, the last time. ``static``: from the
    configuration. ``unconfirmed``: see `Discovery`.
    """

    host: str
    address: str
    state: Literal["here", "up", "idle", "dialling", "down"]
    streams: int
    ejected_for_s: float | None = None
    failures: float = 0.0
    last_error: str | None = None
    static: bool = False
    unconfirmed: bool = False


class Refusal(Struct, frozen=True, kw_only=True):
    """Whom this host has refused at a service that it offers. `caller`: the calling service, where its host knows it;
    `times`: since `first_s`, seconds ago, the last time `last_s` ago. `rule`: which rule or limit, in words.
    """

    host: str
    caller: str | None
    uid: int | None
    reason: str
    rule: str
    times: int
    first_s: float
    last_s: float


class ServiceRoute(Struct, frozen=True, kw_only=True):
    """An item of ``GET /services``: a service of the mesh, and where a new stream would go.

    ``listen``: where containers of this host call it; None: nowhere. ``takes``: the hosts of which one would get the
    stream; ``why``: in words.
    """

    service: str
    listen: str | None
    takes: list[str]
    why: str
    candidates: list[RouteCandidate]
    deliver: str | None = None
    """Where this host delivers it; None: this host does not offer it."""
    allow: list[str] = []
    """Who may call it here, a line for each rule; empty: everybody, or this host does not offer it."""
    refused: list[Refusal] = []
    """Who has tried and may not, or not so often, the latest first: at most 50 callers of the last 24 hours, since the
    proxy was started."""


class Ejection(Struct, frozen=True, kw_only=True):
    """A host that is left alone for a service, because opens failed there, for the ``times``th time in a row."""

    service: str
    host: str
    left_s: float
    times: int


class MeshHost(Struct, frozen=True, kw_only=True):
    """An item of ``GET /hosts``, and of what ``hostlane hosts --json`` prints: a host of the mesh.

    ``state`` as in `RouteCandidate`, and ``links`` and ``streams`` to it, are what a proxy sees. A control server sees
    none of these (None), and knows the host's ``segment``. ``services`` are what the host offers.
    """

    name: str
    address: str
    state: Literal["here", "up", "idle", "dialling", "down"] | None
    services: list[str]
    version: str = ""
    static: bool = False
    unconfirmed: bool = False
    segment: str | None = None
    links: int | None = None
    streams: int | None = None


class MeshService(Struct, frozen=True, kw_only=True):
    """An item of what ``hostlane services --json`` prints: a service of the mesh, and the hosts that offer it.

    ``listen``: where containers of this host call it; None: nowhere, or a control server answers.
    """

    service: str
    offered_by: list[str]
    listen: str | None = None


class AdminErrorBody(Struct, frozen=True, kw_only=True):
    """The body of every answer that is not 200: one line that a user can act on."""

    error: str
