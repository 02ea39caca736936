"""The configuration of one host: a YAML file in, one immutable `Config` out, or every problem of the file at once.

configs/reference.yaml shows every key with its default and meaning; the Structs below say the same to the code. In them
a duration is seconds (float), a size is bytes (int), a mode is the number for chmod and an address is a small Struct.
"""

from __future__ import annotations

import os
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from control.base.reading import addresses, files, units
from control.base.reading.addresses import DEFAULT_RUN_DIR, DEFAULT_SOCKET_DIR, Address, TcpAddress, UnixAddress
from control.base.reading.decode import between, read_by
from control.base.reading.keys import (
    Account,
    AdminConfig,
    Duration,
    FilePath,
    HostName,
    HostPort,
    IpPort,
    LogConfig,
    Mode,
    Patience,
    RunDir,
    ScrapeConfig,
    ServiceName,
    SomePath,
)
from control.base.reading.yamlmap import Document
from proxy.config import accessvalues, netvalues
from proxy.config.accessvalues import STDERR
from proxy.config.check import check, expand
from proxy.config.interfaces import ContainerInterfaceConfig, InterfaceConfig, InterfaceName, SegmentConfig, SegmentName

__all__ = [
    "STDERR",
    "AccessConfig",
    "Address",
    "AdminConfig",
    "AllUpstreamsConfig",
    "AllowRuleConfig",
    "Config",
    "ConnectConfig",
    "ControlPlaneConfig",
    "DoorConfig",
    "LinksConfig",
    "LogConfig",
    "PeerConfig",
    "PoolConfig",
    "ProxyLimits",
    "PumpConfig",
    "ServiceConfig",
    "TakeoverConfig",
    "TcpAddress",
    "TcpConfig",
    "TelemetryConfig",
    "TlsFiles",
    "UnixAddress",
    "UpstreamConfig",
    "load",
    "parse",
]

UNLEASED = TcpAddress(netvalues.AUTO, netvalues.LINKS_PORT)

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

SomeHost = Annotated[str | None, read_by(units.host_name, units.HOST_NAME)]
SomeService = Annotated[str | None, read_by(units.service_name, units.SERVICE_NAME)]
ServiceNames = Annotated[tuple[str, ...] | Literal["all"], read_by(units.service_names, units.SERVICE_NAMES)]
SomeUid = Annotated[int | None, read_by(units.uid, units.UID)]
# None when the key is left out, and only then: a key without a value must not mean "anybody".
ContainerName = Annotated[str, read_by(netvalues.container_name, netvalues.CONTAINER_NAME)]
SomeDirectory = Annotated[str | None, read_by(units.or_null(addresses.run_dir), f"{units.PATH}, or null")]
SomeSocket = Annotated[
    str | None, read_by(units.or_null(addresses.socket_path), f"{addresses.SOCKET_PATH}, or null")
]
LinksAddress = Annotated[TcpAddress | None, read_by(netvalues.links_address, netvalues.LINKS_ADDRESS)]
LinksInterface = Annotated[str, read_by(netvalues.links_interface, netvalues.LINKS_INTERFACE)]
ListenAddress = Annotated[Address, read_by(addresses.listen_address, addresses.LISTEN)]
SourceAddress = Annotated[str, read_by(netvalues.own_ip, netvalues.OWN_IP)]
DeliverAddress = Annotated[Address, read_by(addresses.deliver_address, addresses.DELIVER)]


class TlsFiles(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """This host's files for mutual TLS, PEM. They are watched; proxy.links.credentials checks what is in them."""

    certificate: FilePath
    """The host's own, and the intermediate ones behind it."""
    key: FilePath
    """Its private key, without a passphrase."""
    ca: FilePath
    """Certificates of the CAs that peers' certificates may come from."""


class LinksConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How this host links with its peers."""

    listen: IpPort = UNLEASED
    """Where peers' links arrive: an address of this host on the macvlan or VF. Left out with `address` only; until the
    lease is known (`netdev.leases.leases.fill`) it is no address."""
    address: LinksAddress = None
    """``auto``: the control plane leases the address of `listen`; with its port."""
    segment: SegmentName = None
    """The control plane's address pool that `address` is of, or in which a given `listen` is entered."""
    interface: LinksInterface = "auto"
    """What links go through: ``auto``, the macvlan or virtual function that has the address of `listen`; the name of an
    interface; or ``any``, whichever the routes say (`links.device`)."""
    security: Literal["mtls", "none"] = "mtls"
    tls: TlsFiles | None = None
    """Needed with mtls, unless the control plane gives this host its certificate."""
    max_per_peer: Annotated[int, between(1, 64)] = 2
    """Most links to one peer, both directions together, whatever the number of containers."""
    dial_timeout: Duration = 5.0
    """From the first SYN of a dial to the end of the handshake."""
    ping_interval: Duration = 5.0
    """A link on which nothing arrived for this long is pinged."""
    ping_timeout: Duration = 5.0
    """A peer that answers no ping for this long is dead."""
    refused_timeout: Duration = 2.0
    """How long the peer's host must go on refusing connections before streams without a link end. A proxy that is
    started again listens within a second or so, and its new process then says that the old one is gone."""
    resume_timeout: Duration = 900.0
    """How long streams wait for another link when theirs is lost. By default about as long as a TCP connection with
    bytes under way lives through an outage: Linux gives up after 15 retransmissions (net.ipv4.tcp_retries2), 924.6 s by
    its documentation (ip-sysctl); RFC 9293, section 3.8.3, asks for 100 s at least (R2)."""
    replay_buffer: Annotated[int, read_by(units.size, units.SIZE, low="64KiB", high="1GiB")] = 4 * MIB
    """Sent and not yet acknowledged bytes that a session keeps."""


class ControlPlaneConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where this host learns who else is in its mesh, and is made known itself (docs/discovery.md)."""

    servers: tuple[HostPort, ...]
    """The control plane's; any of them will do, and the next one is asked when one does not answer."""
    token_file: SomePath = None
    """Holds the token that this host joins with, once; not read when it has a certificate."""
    state_dir: FilePath = "/var/lib/hostlane"
    """Keeps this host's key and certificate and the last map of the mesh over restarts."""


class PeerConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another host, as the static configuration knows it."""

    address: HostPort
    services: tuple[ServiceName, ...] = ()
    """What that host offers."""


class UpstreamConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The local socket through which containers of this host call a service."""

    listen: ListenAddress
    mode: Mode = 0o666
    """Unix sockets only, like owner and group."""
    owner: Account = None
    """None: the user that the proxy runs as."""
    group: Account = None
    caller: SomeService = None
    """The service that whoever has this socket belongs to; None: not known."""


class AllUpstreamsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An upstream for every service of the mesh that has none of its own.

    The other keys are those of `UpstreamConfig`.
    """

    directory: SomeDirectory = None
    """None: socket_dir."""
    layout: Literal["files", "directories"] = "files"
    """Of the sockets: ``DIRECTORY/SERVICE.sock``, or ``DIRECTORY/SERVICE/SERVICE.sock``, so that a container may have
    that of one service mounted and reach no other."""
    mode: Mode = 0o666
    owner: Account = None
    group: Account = None
    caller: SomeService = None

    def path(self, socket_dir: str, service: str) -> str:
        """Of the socket of a service."""
        directory = self.directory or socket_dir
        return f"{directory}/{service}.sock" if self.layout == "files" else f"{directory}/{service}/{service}.sock"


class ConnectConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One socket for many services: callers name the one that they want, by HTTP CONNECT (docs/connect.md)."""

    listen: ListenAddress
    services: ServiceNames
    """What it leads to."""
    mode: Mode = 0o666
    """Unix sockets only, like owner and group."""
    owner: Account = None
    group: Account = None
    caller: SomeService = None
    """As in `UpstreamConfig`."""

    @property
    def socket(self) -> UpstreamConfig:
        """What is like an upstream of it: where it listens, and for whom."""
        return UpstreamConfig(
            listen=self.listen, mode=self.mode, owner=self.owner, group=self.group, caller=self.caller
        )


class AllowRuleConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Callers that may call a service: those that are all of what is given here."""

    host: SomeHost = None
    """The calling host."""
    service: SomeService = None
    """The calling service, as the calling host names it (`UpstreamConfig.caller`)."""
    uid: SomeUid = None
    """The calling process's user on the calling host; callers through TCP have none."""


EVERYBODY = (AllowRuleConfig(),)


class ServiceConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A service that this host offers, to its peers and to its own containers."""

    deliver: DeliverAddress
    source: tuple[SourceAddress, ...] = ()
    """Addresses of this host that its connections come from; none: the kernel chooses one."""
    connect_timeout: Duration = 5.0
    allow: tuple[AllowRuleConfig, ...] = EVERYBODY
    """Who may call it: whoever one of the rules fits."""
    proxy_protocol: Literal["none", "v2"] = "none"
    """Whether the service is told who calls, in a header of the PROXY protocol."""


class ProxyLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one proxy may take at most."""

    stream_credit: Annotated[int, read_by(units.size, units.SIZE, low="16KiB", high="64MiB")] = 256 * KIB
    """Bytes that one stream may have under way in each direction before its receiver has read them."""
    memory: Annotated[int | None, read_by(units.or_null(units.size), units.SIZE, low="1MiB", high="1024GiB")] = None
    """Bytes buffered in the whole proxy; None: what the limit of its cgroup suggests (`config.memory`)."""
    memory_per_peer: Annotated[
        int | None, read_by(units.or_null(units.size), units.SIZE, low="64KiB", high="1024GiB")
    ] = None
    """Bytes of these for streams to and from one peer; None: half of them."""
    opens_per_second: Annotated[int, between(1, 1_000_000)] | None = None
    """Streams that one peer may open a second, and as many at once. The peer is told and paces itself; from one that
    opens more, the next one is refused. None: as many as it likes, within its share of each turn."""
    streams_per_link: Annotated[int, between(1, 65535)] = 65535
    waiting_streams: Annotated[int, between(0, 65535)] = 1024
    """Streams that wait for a link to one peer; the next one is refused."""
    open_timeout: Duration = 5.0
    """Longest wait of such a stream."""
    stop_timeout: Duration = 5.0
    """How long a stop takes at most, after SIGTERM or SIGINT; open streams may go on and calls are served meanwhile.
    Half of what Docker and Podman give a container before they kill it."""
    takeover_timeout: Patience = 86400.0
    """How long open streams may go on in a process that was taken over: pooled clients live for hours."""


class TcpConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Connections of local callers and services through TCP. (Links have options of their own.)

    By default whoever has vanished without a word is noticed after two minutes: 60 s + 4 × 15 s. The kernel's own times
    are 2 h + 9 × 75 s; Go's net package has 15 s + 9 × 15 s.
    """

    keepalive_idle: Annotated[
        int | None, read_by(units.or_null(netvalues.whole_seconds), f"{netvalues.WHOLE_SECONDS}, or null")
    ] = 60
    """Silence after which the kernel asks whether the other end is still there; None: it never asks."""
    keepalive_interval: Annotated[int, read_by(netvalues.whole_seconds, netvalues.WHOLE_SECONDS)] = 15
    """Until it asks again."""
    keepalive_probes: Annotated[int, between(1, 127)] = 4
    """Questions without an answer after which the connection is at its end."""


class TelemetryConfig(ScrapeConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where monitoring asks: metrics over TCP, and at a socket all that the admin socket tells, but no command."""

    max_series: Annotated[int, between(100, 1_000_000)] = 5000
    """Series of metrics with a service or a peer beyond which others are counted together, as ``other``."""
    sample_streams: Annotated[float | None, read_by(units.share, units.SHARE)] = None
    """Part of the streams that histograms record; None (auto): each, up to 1,000 a second."""
    socket: SomeSocket = None
    """In a directory of its own; None: there is none."""
    group: Account = None
    """None: the proxy's own."""
    mode: Mode = 0o660


class AccessConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The access log: a line for each stream (docs/access-log.md)."""

    to: Annotated[str | None, read_by(accessvalues.target, accessvalues.TARGET)] = None
    """STDERR, or the path of a file, which is appended to; None: there is no access log."""
    events: tuple[Literal["opened", "interval", "ended"], ...] = ("ended",)
    """When a line is written: the service has taken the stream; each `interval` while it is open; it has ended."""
    interval: Patience = 60.0
    only: Annotated[accessvalues.Only, read_by(accessvalues.only, accessvalues.ONLY)] = "all"
    """Of which streams; a number: of those that were not delivered within so many seconds."""
    sample: Annotated[float, read_by(accessvalues.share, accessvalues.SHARE)] = 1.0
    """Of which part of these."""


class TakeoverConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which process may take this one's place (docs/upgrade.md), beside that its user must be the same, or root."""

    origin: Literal["own", "any"] = field(default="own", name="from")
    """own: one in the same pid and user namespace; any: one of another container, too."""


class DoorConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The door, through which containers call and are called without knowing (docs/containers.md). The door itself and
    the proxy read this section."""

    directory: RunDir = "/run/hostlane-door"
    """Holds the door's socket, and nothing else: root's, and open to the group of `user`."""
    engine: Annotated[str, read_by(addresses.socket_path, addresses.SOCKET_PATH)] = "/run/docker.sock"
    """Socket of the container engine."""
    namespaces: FilePath = "/run/docker/netns"
    """Where the engine has the files of containers' network namespaces."""
    user: Annotated[str | int, read_by(units.some_account, units.ACCOUNT)] = 7600
    """That the proxy runs as."""
    cdi: SomePath = None
    """Holds the socket at which hooks of starting containers report (`hostlane cdi`), and nothing else: root's alone.
    None: there are none."""


class PumpConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The loop that moves the bytes."""

    busy_poll: Annotated[float | None, read_by(units.busy_poll, units.BUSY_POLL)] = None
    """Seconds that the pump looks for work before it sleeps, latency bought with CPU; None (auto): a short time, where
    it pays (`pump.busypoll`); 0: off."""
    busy_poll_us: Annotated[int, between(0, 10_000)] | None = None
    """What `busy_poll` was called before, in microseconds."""

    @property
    def looks_for(self) -> float | None:
        """`busy_poll`, by whichever name it was given."""
        return self.busy_poll if self.busy_poll_us is None else self.busy_poll_us / 1e6


class PoolConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long links are kept without a stream (docs/pool.md)."""

    idle_min: Duration = 1.0
    """A link is kept for at least so long."""
    idle_max: Duration = 3600.0
    """And for at most so long."""
    idle_price: Duration = 0.01
    """The waiting for a handshake that an hour of an idle link is worth."""
    open_ahead: Annotated[bool, Meta(description="true or false")] = True
    """Whether links are opened ahead of uses that come by the clock."""
    record: SomePath = None
    """Each stream is noted there when it has ended, for ``hostlane pool replay``."""
    record_limit: Annotated[int, read_by(units.size, units.SIZE, low="64KiB", high="1024GiB")] = 64 * MIB
    """Size of that file beyond which nothing is recorded."""


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything one proxy knows about itself and its mesh before it starts."""

    host: HostName
    links: LinksConfig
    run_dir: RunDir = DEFAULT_RUN_DIR
    """Holds the sockets that command, and nothing else; created when missing (control/base/system/rundir.py)."""
    socket_dir: RunDir = DEFAULT_SOCKET_DIR
    """Holds the sockets that serve, where nothing else is said; created when missing."""
    admin: AdminConfig = AdminConfig()
    takeover: TakeoverConfig = TakeoverConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    door: DoorConfig | None = None
    """None: labels of containers mean nothing."""
    mesh: HostName = "hostlane"
    """Name of the mesh in certificates (the SPIFFE trust domain)."""
    control: ControlPlaneConfig | None = None
    """None: the mesh is what `peers` says."""
    peers: dict[HostName, PeerConfig] = {}
    """With `control`: hosts that are as they are written here, whatever the control plane says of them."""
    upstreams: dict[ServiceName, UpstreamConfig] = {}
    """The word ``all`` in the file is short for an empty `all_upstreams`."""
    all_upstreams: AllUpstreamsConfig | None = None
    """None: nothing but `upstreams`."""
    connect: ConnectConfig | None = None
    """None: each service that is called has a socket of its own."""
    services: dict[ServiceName, ServiceConfig] = {}
    interfaces: dict[InterfaceName, InterfaceConfig] = {}
    containers: dict[ContainerName, ContainerInterfaceConfig] = {}
    segments: dict[ServiceName, SegmentConfig] = {}
    limits: ProxyLimits = ProxyLimits()
    tcp: TcpConfig = TcpConfig()
    pump: PumpConfig = PumpConfig()
    pool: PoolConfig = PoolConfig()
    log: LogConfig = LogConfig()
    access: AccessConfig = AccessConfig()


NEEDS = "host and links"


def load(path: str | os.PathLike[str]) -> Config:
    """Read the configuration at ``path``.

    Raises ConfigError when the file cannot be read or is wrong, and nothing else.
    """
    return files.load(path, Config, check, NEEDS, expand)


def parse(text: str, file: str) -> Config:
    """The configuration in ``text``; ``file`` is the name that errors give it.

    Raises ConfigError with every problem, in the order of the file, and nothing else.
    """
    return files.parse(text, file, Config, check, NEEDS, expand)


def examine(text: str, file: str) -> tuple[Config, Document]:
    """As `parse`, with what says where each value stands."""
    return files.examine(text, file, Config, check, NEEDS, expand)
