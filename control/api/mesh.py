"""What hosts and the control plane say to each other: bodies of requests and answers, and the messages of the watch.

All of it is JSON. Decoding ignores unknown fields, so that versions understand each other: fields may be added, with a
default, and never change their meaning. Durations are seconds, times are seconds since 1970.
"""

from __future__ import annotations

from msgspec import Struct

from control.api.messages import EdgeInfo


class ServiceOffer(Struct, frozen=True, kw_only=True):
    """A service that a host offers."""

    name: str


class HostRecord(Struct, frozen=True, kw_only=True):
    """A host that is there, as everybody sees it.

    Attributes:
        address: where its peers dial it, ``IP:PORT``.
        instance: the process that registered it; another one after a restart.
        segment, mac: the address pool that its address was leased from, and the MAC of the interface, where known.
        capacity: streams that it is willing to carry; 0: it does not say.
    """

    name: str
    address: str
    instance: str
    version: str = ""
    services: tuple[ServiceOffer, ...] = ()
    segment: str | None = None
    mac: str | None = None
    capacity: int = 0


class RegisterRequest(Struct, frozen=True, kw_only=True):
    """``PUT /v1/hosts/NAME`` (mutual TLS; NAME must be the certificate's): the host is there, and offers this.

    Idempotent; the whole record each time. The answer is a `RegisterResponse`. 409 ``taken``: the address is another
    host's; 409 ``in_use``: another proxy bears this host's name, and is alive.

    Attributes:
        secret: of the host's state_dir. Whoever shows the one that the host was registered with is a restart of it, and
            replaces it even if it seems alive. A hash is kept of it. Empty: there is none.
        before: the secret of the state_dir that the host had before, if another one: it shows as much.
        yields: do not replace a proxy that is alive, whatever the secret: it has replaced the asker.
    """

    record: HostRecord
    secret: str = ""
    before: str = ""
    yields: bool = False


class RegisterResponse(Struct, frozen=True, kw_only=True):
    """The record is in force, from this revision on, until ``lease`` has passed without ``POST /v1/hosts/NAME/alive``
    (an `AliveResponse`; 404: register again; 409: another instance has registered since).
    ``DELETE /v1/hosts/NAME?instance=I`` takes it away at once, unless it is another instance's by now."""

    epoch: str
    revision: int
    lease: float


MOST_EDGES = 50
"""Edges that a host tells of."""
MOST_PROBLEMS = 20
MOST_TOLD_BYTES, MOST_PROBLEM_BYTES = 15_000, 5_000
"""Of JSON, for edges and problems together, and for the problems: with what else it says, a host stays below the least
bound for a body (`limits.body`, 16 KiB)."""


class ToldProblem(Struct, frozen=True, kw_only=True):
    """What is wrong, as a host tells it, in the words of its page (docs/page.md). ``lasts_s``: for how long already."""

    kind: str
    name: str
    text: str
    lasts_s: float


class Instance(Struct, frozen=True, kw_only=True):
    """``POST /v1/hosts/NAME/alive`` (mutual TLS): this process of the host is still there. `edges`: its busiest ones,
    and `problems`: what is wrong there, which are kept in memory only; None: it does not tell."""

    instance: str
    edges: tuple[EdgeInfo, ...] | None = None
    problems: tuple[ToldProblem, ...] = ()


class HostEdges(Struct, frozen=True, kw_only=True):
    """What a host has told, `age_s` ago."""

    host: str
    age_s: float
    edges: tuple[EdgeInfo, ...]
    problems: tuple[ToldProblem, ...] = ()


class ToldEdges(Struct, frozen=True, kw_only=True):
    """``GET /v1/edges/told`` (another control server): what hosts have told this one."""

    hosts: tuple[HostEdges, ...]


class Namesake(Struct, frozen=True, kw_only=True):
    """Another proxy that bears a host's name.

    Attributes:
        address: where peers would dial it, ``IP:PORT``; empty: it has not said so.
        client: the IP address that the control server saw it come from.
        instance: the process.
    """

    address: str
    client: str
    instance: str

    def __str__(self) -> str:
        if not self.address or not self.client:
            return self.address or self.client
        ip = self.address.rpartition(":")[0].strip("[]")
        return self.address if ip == self.client else f"{self.address} (comes from {self.client})"


class AliveResponse(Struct, frozen=True, kw_only=True):
    """The host is known, and stays so. `namesake`: another proxy that wanted to register as this host lately, and was
    refused (409 ``in_use``). `now`: by the server's clock, seconds since 1970; None: of an earlier version."""

    namesake: Namesake | None = None
    now: float | None = None


class TrustBundle(Struct, frozen=True, kw_only=True):
    """Whom hosts may believe.

    Attributes:
        bundle: PEM of the CA certificates in force, two during a rotation.
        revoked: serial numbers (lower-case hex) of certificates that no longer count.
        renew_before: certificates issued before this time are to be renewed now (a new CA issues).
    """

    bundle: str
    revoked: tuple[str, ...] = ()
    renew_before: float = 0.0


class MapSnapshot(Struct, frozen=True, kw_only=True, tag="snapshot"):
    """The whole map. Always the first message of a watch that could not go on from where the host was.

    ``epoch`` names the store: a revision means nothing in another one, and a host that is missing from the snapshot of
    another store than before may only have not registered there yet.
    """

    epoch: str
    revision: int
    hosts: tuple[HostRecord, ...]
    trust: TrustBundle | None = None


class MapChanges(Struct, frozen=True, kw_only=True, tag="changes"):
    """What has changed since the message before. Slow watchers get several changes as one; the last state of each host
    is what counts."""

    revision: int
    put: tuple[HostRecord, ...] = ()
    gone: tuple[str, ...] = ()
    trust: TrustBundle | None = None


class MapHeartbeat(Struct, frozen=True, kw_only=True, tag="heartbeat"):
    """Nothing has changed, and the server is alive. Comes at least every ``HEARTBEAT`` seconds of silence."""

    revision: int


class MapElsewhere(Struct, frozen=True, kw_only=True, tag="elsewhere"):
    """Another control server has fewer watchers: go there, if one takes you (``elsewhere=sent``; 503 ``even``: that one
    does not), and stay otherwise. Comes to watchers that are willing (``elsewhere=yes``), when they have everything."""


WatchMessage = MapSnapshot | MapChanges | MapHeartbeat
WatchLine = WatchMessage | MapElsewhere
"""A line of ``GET /v1/watch?epoch=E&after=REVISION&instance=I&elsewhere=W`` (mutual TLS, or the local socket):
newline-delimited JSON without end. A process of a host says which one it is (`Instance`): it is alive as long as its
watch lasts. Without ``after``, or when the server no longer knows what came after that revision, it begins with a
`MapSnapshot`; otherwise with the `MapChanges` since then. ``elsewhere``: ``yes``, the watcher takes a `MapElsewhere`;
``sent``, it has had one from another server, and takes the next one, too."""


def control_name(mesh: str) -> str:
    """The DNS name that every control server's certificate bears, and no host's: clients ask for it (TLS server name),
    whatever the address that they dial."""
    return f"control.{mesh}.internal"


HEARTBEAT = 5.0
SILENCE = 3 * HEARTBEAT
"""Seconds without a message after which a watcher takes the server for dead, and tries the next one."""


class JoinRequest(Struct, frozen=True, kw_only=True):
    """``POST /v1/join`` (TLS without a client certificate): a host's token and its certificate request (PEM)."""

    host: str
    token: str
    csr: str


class RenewRequest(Struct, frozen=True, kw_only=True):
    """``POST /v1/renew`` (mutual TLS): a request for a new certificate of the same host."""

    csr: str


class IssueResponse(Struct, frozen=True, kw_only=True):
    """A certificate (PEM, the host's own first) and the CA certificates in force (PEM)."""

    mesh: str
    certificate: str
    bundle: str


class CaBundle(Struct, frozen=True, kw_only=True):
    """``GET /v1/ca`` (anybody): the CA certificates in force, PEM. Whoever does not know them yet compares them with
    the fingerprint that its token holds."""

    mesh: str
    bundle: str


class TokenRequest(Struct, frozen=True, kw_only=True):
    """``POST /v1/tokens`` (local socket): a token for one host, good once within ``ttl`` seconds. ``servers``: what it
    says of where the control plane is; nothing: all servers that are known, by the addresses on which they listen.
    """

    host: str
    ttl: float
    servers: tuple[str, ...] = ()


class TokenCreated(Struct, frozen=True, kw_only=True):
    """The token, which is not kept anywhere and cannot be shown again, and when it expires."""

    token: str
    expires: float


class TokenInfo(Struct, frozen=True, kw_only=True):
    """``GET /v1/tokens`` (local socket) is a list of these: tokens that nobody has used yet."""

    id: str
    host: str
    expires: float


class RevokeRequest(Struct, frozen=True, kw_only=True):
    """``POST /v1/revoke`` (local socket): all certificates of a host, or one by its serial number (lower-case hex)."""

    host: str | None = None
    serial: str | None = None


class RevokeDone(Struct, frozen=True, kw_only=True):
    """The serial numbers that no longer count from now on."""

    serials: tuple[str, ...]


class AddressRequest(Struct, frozen=True, kw_only=True):
    """``POST /v1/addresses`` (mutual TLS): an address on a segment for this host; the same one each time it asks.

    With ``address`` the host says which one it has (an IP, without prefix length): it is entered in the address book,
    or refused (409) with the name of its holder.

    Attributes:
        part: what of the host it is for, each with an address of its own; ``@CONTAINER:INTERFACE``, empty: itself.
        before: the address that was leased to it last. It gets it again if nobody else has it by now, also from a book
            that has forgotten it.
        alone: this host brings no address of its own along, or does not any more: what it had entered is forgotten.
        secret: as in `RegisterRequest`. Another proxy of the host's name would get the same address: it is refused (409
            ``in_use``) while that one is alive.
    """

    segment: str
    address: str | None = None
    mac: str | None = None
    part: str = ""
    before: str | None = None
    alone: bool = False
    secret: str = ""


class AddressLease(Struct, frozen=True, kw_only=True):
    """``address`` with its prefix length (``10.77.0.5/24``), and the MAC that goes with it; held for ``lease`` seconds
    after the host was last there. ``DELETE /v1/addresses?segment=S&part=P`` gives it back. ``part``: as asked for; a
    server that knows of no parts leaves it out."""

    segment: str
    address: str
    mac: str
    lease: float
    part: str = ""


class SegmentUse(Struct, frozen=True, kw_only=True):
    """An address pool: addresses that it has, those that hosts hold, and the MACs that these put on the segment.

    Attributes:
        hosts: how many hosts hold the addresses.
        own: MACs of the host that asks, in lower case.
    """

    name: str
    pool: str
    size: int
    held: int
    macs: int
    hosts: int = 0
    own: tuple[str, ...] = ()


class ControlStatus(Struct, frozen=True, kw_only=True):
    """``GET /v1/status``: what this control server does. ``watching``: its own watch of the store is up, and with it
    those that it serves."""

    name: str
    mesh: str
    version: str
    uptime_s: float
    epoch: str
    revision: int
    watching: bool
    hosts: int
    services: int
    watchers: int
    clients: int
    requests: int
    refused: int
    segments: tuple[SegmentUse, ...] = ()
    joining: dict[str, int] = {}
    """How often since the start: ``joined``, ``renewed``, ``revoked``, and refusals by their cause, such as
    ``token_used`` or ``too_many`` (`control.ca.joining.HostEnrolment`)."""


class Health(Struct, frozen=True, kw_only=True):
    """``GET /v1/health`` (anybody): the control server of this name sees its store (503: it does not)."""

    name: str


class BackupRequest(Struct, frozen=True, kw_only=True):
    """``POST /v1/backup``: where, on the control server's machine; an absolute path at which nothing is."""

    path: str


class ControlErrorBody(Struct, frozen=True, kw_only=True):
    """The body of every answer that is not 2xx: one line that a user can act on; ``code``: a word for programs."""

    error: str
    code: str = ""


class CaRoot(Struct, frozen=True, kw_only=True):
    """A CA of the mesh.

    Attributes:
        id: short name; issues: whether new certificates come from it; key_here: whether the server that answers has its
            key.
        certificates: that it issued and that are valid, the last one until `in_use_until` (0: none).
        hosts: whose newest certificate is one of these.
    """

    id: str
    issues: bool
    key_here: bool
    not_after: float
    certificates: int = 0
    in_use_until: float = 0.0
    hosts: tuple[str, ...] = ()


class CaStatus(Struct, frozen=True, kw_only=True):
    """The CAs in force, the one that issues first: ``GET /v1/ca/status``, and the answer to ``POST /v1/ca/add``,
    ``activate`` and ``drop`` (body: a `CaDrop`), all on the local socket."""

    mesh: str
    roots: tuple[CaRoot, ...]


class CaDrop(Struct, frozen=True, kw_only=True):
    """``POST /v1/ca/drop``; `force`: also while certificates of that CA are valid, which are refused from then on."""

    force: bool = False


def followed(found: MapSnapshot | None, message: MapSnapshot | MapChanges) -> MapSnapshot:
    """The map as a watcher has it after one more message."""
    if isinstance(message, MapSnapshot):
        return message
    assert found is not None, "a watch begins with a snapshot"
    hosts = {host.name: host for host in found.hosts}
    hosts.update((host.name, host) for host in message.put)
    for name in message.gone:
        hosts.pop(name, None)
    return MapSnapshot(
        epoch=found.epoch,
        revision=message.revision,
        hosts=tuple(hosts[name] for name in sorted(hosts)),
        trust=found.trust if message.trust is None else message.trust,
    )
