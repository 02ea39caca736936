"""The configuration of one control server: a YAML file in, one immutable `Config` out, or every problem at once.

configs/control-reference.yaml shows every key with its default and meaning. As in a host's configuration, a duration is
seconds (float) here, a size is bytes, a mode is the number for chmod and an address is a small Struct.
"""

from __future__ import annotations

import ipaddress
import os
from typing import Annotated, Any

from msgspec import UNSET, Struct

from control.base.reading import files, units
from control.base.reading.addresses import DEFAULT_CONTROL_RUN_DIR, is_link_local, scope_of
from control.base.reading.decode import between, read_by
from control.base.reading.keys import (
    AdminConfig,
    Duration,
    FilePath,
    HostName,
    HostPort,
    IpPort,
    LogConfig,
    RunDir,
    ScrapeConfig,
    ServiceName,
    SomePath,
    check_page,
)
from control.base.reading.shape import takes, text
from control.base.reading.units import quote
from control.base.reading.yamlmap import Document, Path

__all__ = [
    "AddressPoolConfig",
    "AdminConfig",
    "Config",
    "ControlLimits",
    "EtcdConfig",
    "LogConfig",
    "SqliteConfig",
    "StoreConfig",
    "load",
    "parse",
]

POOL = "a network such as 10.77.0.0/24, with 2 to 1048576 addresses"
RESERVED = "an address or a network of the pool"
MAX_POOL = 1 << 20
"""Addresses of a pool: as many as a /12 has, and more than a switch has room for MACs."""


@takes(text("[0-9A-Fa-f.:]+/[0-9]{1,3}"))
def pool(raw: object) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """``10.77.0.0/24``: where addresses are leased from."""
    try:
        network = ipaddress.ip_network(raw) if isinstance(raw, str) and "/" in raw else None
    except ValueError:
        network = None
    if network is None or not 2 <= network.num_addresses <= MAX_POOL:
        raise units.wrong(raw, POOL)
    return network


@takes(text("[0-9A-Fa-f.:]+(?:/[0-9]{1,3})?"))
def reserved(raw: object) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """``10.77.0.1`` or ``10.77.0.0/28``: what is never leased."""
    try:
        return ipaddress.ip_network(raw if isinstance(raw, str) else "")
    except ValueError:
        raise units.wrong(raw, RESERVED) from None


Lifetime = Annotated[float, read_by(units.lifetime, units.LIFETIME)]
Network = Annotated[ipaddress.IPv4Network | ipaddress.IPv6Network, read_by(pool, POOL)]
Part = Annotated[ipaddress.IPv4Network | ipaddress.IPv6Network, read_by(reserved, RESERVED)]


class SqliteConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One control server that keeps everything in one file."""

    path: SomePath = None
    """None: ``store.db`` in state_dir."""


class EtcdConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Several control servers in front of one etcd (v3) cluster."""

    endpoints: tuple[HostPort, ...]
    """Where its members take clients' requests."""
    prefix: ServiceName = "hostlane"
    """What every key begins with: several meshes may share a cluster."""
    ca: SomePath = None
    """CA certificates of the members, PEM. None: plain HTTP, fit for one machine or a network of their own."""
    certificate: SomePath = None
    """This control server's, and its key, if the members ask for one."""
    key: SomePath = None
    user: str | None = None
    password_file: SomePath = None


class StoreConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where hosts, addresses and tokens are kept: one of the two."""

    sqlite: SqliteConfig | None = None
    etcd: EtcdConfig | None = None


class ControlLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What clients may take at most."""

    connections: Annotated[int, between(16, 1_000_000)] = 20_000
    """All together; the local socket has some of its own. One more is closed at once."""
    connections_per_client: Annotated[int, between(2, 1_000_000)] = 32
    """Of one host; and of one IP address, as long as they have shown no host's certificate. A host needs two: one for
    its requests, and its watch."""
    watchers: Annotated[int, between(1, 1_000_000)] = 15_000
    requests_per_second: Annotated[int, between(1, 1_000_000)] = 50
    """Of one host, or of one IP address without a host's certificate, and twice as many at once; a host makes one every
    five seconds."""
    body: Annotated[int, read_by(units.size, units.SIZE, low="16KiB", high="16MiB")] = 256 << 10
    """Bytes of a request's body: a record with 2,000 services takes a third of it."""
    request_timeout: Duration = 10.0
    """For a request to arrive whole, and again for its answer to be taken."""
    idle_timeout: Duration = 60.0
    """For the next request on a connection."""


class AddressPoolConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A segment's address pool, from which hosts with ``links.address: auto`` get theirs."""

    pool: Network
    reserved: tuple[Part, ...] = ()
    """Routers, switches, and whatever else has an address there and is no host."""
    hold: Lifetime = 24 * 3600.0
    """How long an address stays a host's after it was last there."""


DEFAULT_STATE_DIR = "/var/lib/hostlane-control"


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything one control server knows before it starts."""

    name: HostName
    """Of this control server; each of several has its own."""
    listen: IpPort
    """Where hosts' requests arrive, TLS only."""
    mesh: HostName = "hostlane"
    run_dir: RunDir = DEFAULT_CONTROL_RUN_DIR
    """Holds ``control.sock`` and nothing else; created when missing (control/base/system/rundir.py)."""
    state_dir: FilePath = DEFAULT_STATE_DIR
    """Holds the CA's key and certificate, in its folder ``ca``, made by ``hostlane control init``."""
    ca_keys: tuple[FilePath, ...] = ()
    """Keys of CAs that are kept elsewhere (a mounted secret, say). ``hostlane control init`` takes the first one, or
    writes it if it does not exist."""
    store: StoreConfig = StoreConfig(sqlite=SqliteConfig())
    admin: AdminConfig = AdminConfig()
    """Who administers the mesh on this machine, by ``control.sock`` in run_dir."""
    telemetry: ScrapeConfig = ScrapeConfig()
    lease: Duration = 15.0
    """A host that has not been heard of for so long is off the map."""
    certificate_lifetime: Lifetime = 24 * 3600.0
    """Of hosts' certificates; they renew at half of it."""
    segments: dict[ServiceName, AddressPoolConfig] = {}
    limits: ControlLimits = ControlLimits()
    log: LogConfig = LogConfig()

    @property
    def store_file(self) -> str | None:
        """The file of SQLite; None with etcd."""
        sqlite = self.store.sqlite
        return None if sqlite is None else sqlite.path or os.path.join(self.state_dir, "store.db")


NEEDS = "name and listen"
LEASES = (5.0, 600.0)
"""Seconds. Below, a host that is busy for a moment would be off the map; above, one that crashed would stay on it."""


def load(path: str | os.PathLike[str]) -> Config:
    """Read the configuration at ``path``.

    Raises ConfigError when the file cannot be read or is wrong, and nothing else.
    """
    return files.load(path, Config, check, NEEDS)


def parse(content: str, file: str) -> Config:
    """The configuration in ``content``; ``file`` is the name that errors give it. Raises as `load` does."""
    return files.parse(content, file, Config, check, NEEDS)


def examine(content: str, file: str) -> tuple[Config, Document]:
    """As `parse`, with what says where each value stands."""
    return files.examine(content, file, Config, check, NEEDS)


def check(config: Any, document: Document, unknown: set[Path]) -> None:
    """Add a problem to ``document`` for whatever does not go together. (Any value may be UNSET here.)"""
    if config.store is not UNSET and ("store",) not in unknown:
        _check_store(config.store, document)
    _check_scopes(config, document)
    check_page(config.telemetry, document)
    if isinstance(config.lease, float) and not LEASES[0] <= config.lease <= LEASES[1]:
        document.problem(("lease",), f"found {config.lease:g} s; allowed: 5s to 10m")
    for name, segment in config.segments.items() if isinstance(config.segments, dict) else ():
        _check_segment(("segments", name), segment, document)


def _check_scopes(config: Any, document: Document) -> None:
    places: dict[Path, Any] = {("listen",): config.listen}
    if config.store is not UNSET and config.store.etcd not in (None, UNSET):
        endpoints = config.store.etcd.endpoints
        of_etcd = enumerate(endpoints if isinstance(endpoints, tuple) else ())
        places |= {("store", "etcd", "endpoints", position): each for position, each in of_etcd}
    for path, place in places.items():
        if place is not UNSET and is_link_local(place.host) and not scope_of(place.host):
            found = f"found {quote(place.hostport)}, which each interface has on its own"
            document.problem(path, f"{found}; allowed: [{place.host}%INTERFACE]:{place.port}")


def _check_store(store: Any, document: Document) -> None:
    chosen = [name for name in ("sqlite", "etcd") if getattr(store, name) is not None]
    if len(chosen) != 1:
        document.problem(("store",), f"found {' and '.join(chosen) or 'neither'}; allowed: sqlite or etcd, one of them")
    etcd = store.etcd
    if etcd is None or etcd is UNSET:
        return
    if etcd.endpoints == ():
        document.problem(("store", "etcd", "endpoints"), "found none; allowed: one or more IP:PORT")
    if (etcd.certificate is None) is not (etcd.key is None):
        document.problem(("store", "etcd"), "found one of certificate and key; allowed: both, or neither")
    if (etcd.user is None) is not (etcd.password_file is None):
        document.problem(("store", "etcd"), "found one of user and password_file; allowed: both, or neither")


def _check_segment(path: Path, segment: Any, document: Document) -> None:
    if segment is UNSET or segment.pool is UNSET or not isinstance(segment.reserved, tuple):
        return
    for position, part in enumerate(segment.reserved):
        if part is not UNSET and (part.version != segment.pool.version or not part.subnet_of(segment.pool)):
            said = f'found "{part}"; allowed: an address or a network of {segment.pool}'
            document.problem((*path, "reserved", position), said)
