"""The configuration that a proxy follows: what its file says, and what the map adds (sans-IO).

A host of the map becomes a peer as if it stood under ``peers``. The file has the last word: a peer that stands there is
as it stands there. With ``all_upstreams`` every service that anybody offers becomes an upstream, unless one of its name
stands under ``upstreams``.

What other hosts say about themselves is nobody's own doing: a record that cannot be used is left out, and everything
else goes on.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping

from msgspec import structs

from control.api.mesh import HostRecord
from control.base.reading import addresses, units
from control.base.reading.addresses import UNIX_PATH_BYTES, UnixAddress
from proxy.config.schema import Config, PeerConfig, UpstreamConfig
from proxy.routing.table import RoutingTable


def needed(config: Config, table: RoutingTable, inside: Iterable[str] = ()) -> set[str]:
    """The peers that upstreams of this host use, those of services that are called from `inside` containers, and what
    its CONNECT socket is said to lead to. What has an upstream, or can be named there, only because every service can
    is not needed before somebody calls it: in a large mesh that would be a link from every host to every other.
    """
    named = (config.upstreams.keys() - _automatic(config)).union(inside)
    if config.connect is not None and config.connect.services != "all":
        named = named.union(config.connect.services)
    return {peer for name in named for peer in table.find(name).peers}


def _automatic(config: Config) -> set[str]:
    """The services that have an upstream only because of ``all_upstreams``."""
    if config.all_upstreams is None:
        return set()
    return {
        name for name, upstream in config.upstreams.items() if upstream.listen == UnixAddress(_socket(config, name))
    }


def _socket(config: Config, service: str) -> str:
    """Path of the upstream that ``all_upstreams`` gives to a service; "" without that key."""
    every = config.all_upstreams
    return "" if every is None else every.path(config.socket_dir, service)


class EffectiveConfig:
    """Makes the configuration in force out of the file and one map after the other. Peers and upstreams that have not
    changed are the same objects in each, so that comparing two configurations is cheap.

    Args:
        static: what the file says.

    Attributes:
        left_out: what of the last map could not be used, and why; by name of the host or service.
    """

    def __init__(self, static: Config) -> None:
        self.static = static
        self.left_out: dict[str, str] = {}
        self._peers: dict[str, tuple[HostRecord, PeerConfig | None, dict[str, str]]] = {}
        self._upstreams: dict[str, UpstreamConfig] = {}
        self._taken = {each.listen for each in static.upstreams.values()}
        self._taken |= {each.deliver for each in static.services.values()}

    def config(self, hosts: Mapping[str, HostRecord], without: Container[str] = ()) -> Config:
        """The configuration with these hosts; `without`: services that get no upstream for being offered."""
        self.left_out = {}
        peers = dict(self._mapped(hosts))
        peers.update(self.static.peers)
        upstreams = dict(self._offered(peers, without)) if self.static.all_upstreams is not None else {}
        upstreams.update(self.static.upstreams)
        return structs.replace(self.static, peers=peers, upstreams=upstreams)

    def _mapped(self, hosts: Mapping[str, HostRecord]) -> Iterator[tuple[str, PeerConfig]]:
        before, self._peers = self._peers, {}
        for name in sorted(hosts):
            if name == self.static.host or name in self.static.peers:
                continue
            known = before.get(name)
            if known is None or known[0] is not hosts[name]:
                known = (hosts[name], *self._read(hosts[name], known[1] if known else None))
            self._peers[name] = known
            self.left_out.update(known[2])
            if known[1] is not None:
                yield name, known[1]

    def _read(self, record: HostRecord, before: PeerConfig | None) -> tuple[PeerConfig | None, dict[str, str]]:
        """The peer that a record describes, and what of it cannot be used."""
        wrong: dict[str, str] = {}
        try:
            units.host_name(record.name)
            address = addresses.unscoped(record.address, addresses.host_port(record.address))
            if address == self.static.links.listen:
                raise units.wrong(record.address, "another address than this host's own")
        except ValueError as error:
            return None, {record.name[: units.SHOWN_CHARACTERS]: f"host left out: {error}"}
        services = dict.fromkeys(_readable((offer.name for offer in record.services), record.name, wrong))
        peer = PeerConfig(address=address, services=tuple(services))
        return (before if before == peer else peer), wrong

    def _offered(
        self, peers: Mapping[str, PeerConfig], without: Container[str]
    ) -> Iterator[tuple[str, UpstreamConfig]]:
        names = {*self.static.services, *(name for peer in peers.values() for name in peer.services)}
        before, self._upstreams = self._upstreams, {}
        for name in sorted(names.difference(self.static.upstreams)):
            if name in without:
                continue
            upstream = before.get(name) or self._upstream(name)
            self._upstreams[name] = upstream
            if (why := self._unusable(upstream.listen)) is None:
                yield name, upstream
            else:
                self.left_out[name] = f"service without a socket: {why}"

    def _upstream(self, name: str) -> UpstreamConfig:
        every = self.static.all_upstreams
        assert every is not None
        path = _socket(self.static, name)
        return UpstreamConfig(
            listen=UnixAddress(path), mode=every.mode, owner=every.owner, group=every.group, caller=every.caller
        )

    def _unusable(self, listen: addresses.Address) -> str | None:
        assert isinstance(listen, UnixAddress)
        if len(listen.path.encode()) > UNIX_PATH_BYTES:
            return f"{listen.path} has more than {UNIX_PATH_BYTES} bytes; choose a shorter all_upstreams.directory"
        if listen in self._taken:
            return f"{listen.path} stands elsewhere in this host's configuration"
        return None


def _readable(names: Iterable[str], host: str, wrong: dict[str, str]) -> Iterator[str]:
    for name in names:
        try:
            yield units.service_name(name)
        except ValueError as error:
            wrong[f"{host}/{name[: units.SHOWN_CHARACTERS]}"] = f"service left out: {error}"
