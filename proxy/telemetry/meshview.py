"""What the proxy tells about the mesh: the hosts and services that it knows, and how it learns of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Literal

from control.api.messages import Discovery, MeshHost, Refusal, RouteCandidate, ServiceRoute
from proxy.config.schema import EVERYBODY, Config, ServiceConfig
from proxy.errors import CloseReason
from proxy.mux.frames import UNKNOWN_UID
from proxy.pool.pool import Pool
from proxy.pump.refusedcalls import RefusedCalls
from proxy.routing.ejection import Ejections
from proxy.routing.explain import decide, not_allowed_in_words, rule_in_words

if TYPE_CHECKING:
    from proxy.mesh.follower import MapFollower

State = Literal["up", "idle", "dialling", "down"]


def discovery(config: Config, follower: MapFollower, renewal_error: str | None) -> Discovery:
    """How this proxy follows the control plane."""
    standing, registration, known = follower.standing, follower.registration, follower.map
    assert config.control is not None
    return Discovery(
        servers=[server.hostport for server in config.control.servers],
        server=standing.server,
        last_error=standing.last_error,
        epoch=known.epoch,
        revision=known.revision,
        age_s=None if standing.heard_at is None else max(0.0, time.time() - standing.heard_at),
        from_disk=standing.from_disk,
        hosts=len(known.hosts),
        unconfirmed=sorted(known.unconfirmed),
        registered=registration.registered is not None,
        registration_error=registration.last_error,
        barred=registration.barred,
        displaced=registration.displaced,
        namesake=None if registration.namesake is None else str(registration.namesake),
        left_out=standing.left_out,
        renewal_error=renewal_error,
        clock_ahead_s=registration.clock_ahead,
    )


def hosts(config: Config, pools: Mapping[str, Pool], follower: MapFollower | None) -> list[MeshHost]:
    """This host, and all its peers."""
    told = {} if follower is None else follower.map.hosts
    unconfirmed, static = _marks(follower)
    own = MeshHost(
        name=config.host, address=config.links.listen.hostport, state="here", services=sorted(config.services)
    )
    return [own] + [
        MeshHost(
            name=name,
            address=peer.address.hostport,
            state=state_of(pools[name]),
            services=sorted(peer.services),
            version=told[name].version if name in told and name not in static else "",
            static=follower is None or name in static,
            unconfirmed=name in unconfirmed and name not in static,
            links=len(pools[name].links),
            streams=pools[name].streams,
        )
        for name, peer in sorted(config.peers.items())
    ]


def services(
    config: Config,
    pools: Mapping[str, Pool],
    ejections: Ejections,
    follower: MapFollower | None,
    refused: RefusedCalls,
) -> list[ServiceRoute]:
    """Every service that anybody offers, or that this host has an upstream for."""
    offered: dict[str, list[str]] = {name: [] for name in config.upstreams}
    offered.update((name, [config.host]) for name in config.services)
    for peer, found in config.peers.items():
        for name in found.services:
            offered.setdefault(name, []).append(peer)
    return [_route(config, name, offered[name], pools, ejections, follower, refused) for name in sorted(offered)]


def _route(
    config: Config,
    service: str,
    offered_by: list[str],
    pools: Mapping[str, Pool],
    ejections: Ejections,
    follower: MapFollower | None,
    refused: RefusedCalls,
) -> ServiceRoute:
    candidates = list(_candidates(config, service, offered_by, pools, ejections, follower))
    takes, why = decide(candidates)
    upstream, offered = config.upstreams.get(service), config.services.get(service)
    return ServiceRoute(
        service=service,
        listen=None if upstream is None else str(upstream.listen),
        takes=takes,
        why=why,
        candidates=candidates,
        deliver=None if offered is None else str(offered.deliver),
        allow=[] if offered is None or offered.allow == EVERYBODY else [rule_in_words(rule) for rule in offered.allow],
        refused=[] if offered is None else list(_refused(service, offered, refused, monotonic())),
    )


def _refused(service: str, offered: ServiceConfig, refused: RefusedCalls, now: float) -> Iterator[Refusal]:
    for who, found in refused.of(service, now):
        uid = None if who.uid == UNKNOWN_UID else who.uid
        rule = found.detail
        if who.reason is CloseReason.NOT_ALLOWED:
            rule = not_allowed_in_words(service, offered.allow, who.host, who.caller, uid)
        yield Refusal(
            host=who.host,
            caller=who.caller or None,
            uid=uid,
            reason=who.reason.label,
            rule=rule,
            times=found.times,
            first_s=round(now - found.first, 1),
            last_s=round(now - found.last, 1),
        )


def _candidates(
    config: Config,
    service: str,
    offered_by: list[str],
    pools: Mapping[str, Pool],
    ejections: Ejections,
    follower: MapFollower | None,
) -> Iterator[RouteCandidate]:
    unconfirmed, static = _marks(follower)
    now = monotonic()
    for host in offered_by:
        pool, record = pools.get(host), ejections.record(service, host)
        yield RouteCandidate(
            host=host,
            address=(config.links.listen if pool is None else pool.peer.address).hostport,
            state="here" if pool is None else state_of(pool),
            streams=0 if pool is None else pool.streams,
            ejected_for_s=record.until - now if record is not None and record.until > now else None,
            failures=0.0 if record is None else record.failures,
            last_error=None if pool is None or pool.up else pool.last_error,
            static=pool is not None and (follower is None or host in static),
            unconfirmed=host in unconfirmed and host not in static,
        )


def state_of(pool: Pool) -> State:
    """The state of a peer, from all its links together."""
    return "up" if pool.up else "dialling" if pool.dialling else "idle" if pool.idle else "down"


def _marks(follower: MapFollower | None) -> tuple[frozenset[str], frozenset[str]]:
    """Names of hosts that are unconfirmed, and of those that stand in the file."""
    if follower is None:
        return frozenset(), frozenset()
    return follower.map.unconfirmed, frozenset(follower.static.peers)
