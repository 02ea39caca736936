"""A proxy follows the control plane: it watches the map, and is made equal to what the map says.

The data never waits for any of it. Without the control plane the proxy goes on with the last map, and starts with the
one on disk; with neither, with what its file says.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

import structlog
import trio

from control.api import mapnews
from control.api.client import Denied, MapWatch, Unreachable
from control.api.mesh import HostRecord, MapChanges, MapSnapshot, ServiceOffer, TrustBundle, WatchMessage
from control.api.refusals import NEEDS_TOKEN
from control.base.backoff import Backoff
from proxy.config.difference import ConfigDifference
from proxy.config.schema import Config
from proxy.errors import NotApplied
from proxy.mesh import mapfile
from proxy.mesh.effective import EffectiveConfig
from proxy.mesh.map import MeshMap
from proxy.mesh.registration import HostRegistrar, RegistrationClient
from proxy.mesh.statelock import StateLock

log = structlog.get_logger()

APPLY_EVERY = 0.1
"""Seconds between two times that the proxy is made equal to the map, while changes keep coming: a mesh that starts, or
moves, is a burst of them. The first change after a quiet moment waits for nothing."""
SHARE = 0.1
"""Part of this thread's time that following may take: it is the data's. (A change costs 2 ms with 1,000 hosts, and
16 to 20 ms, and the opening of sockets, if there are 5,000 services and an upstream for each.)"""
SAVE_EVERY = 1.0
REFRESH = 60.0
"""Seconds between writings of the map when it changes, and when it does not (the time in the file is its age)."""
HELD_BACK = 30.0
"""Seconds until a socket that could not be had is tried again, if nothing else happens before."""
BEHIND = 1.0
"""Seconds until the map is tried again when nothing of it could be followed: while another process is taking over."""
ATTEMPTS = 64
"""Times that one map is applied in part to find the sockets that cannot be had. More are not worth the time."""
PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds: windows of the pause before the next watch (`control.base.backoff`)."""


class MapClient(RegistrationClient, Protocol):
    """What is needed of the control plane (`control.api.client.ControlClient`)."""

    def watch(self, epoch: str = "", after: int = 0, instance: str = "") -> AbstractAsyncContextManager[MapWatch]: ...


@dataclass
class FollowerState:
    """How the proxy follows the control plane, for those who show it.

    Attributes:
        server: that the watch is at; None: there is no watch.
        heard_at: when the control plane was last heard, seconds since 1970; None: never, and there was no map on disk.
        from_disk: the map is the one that was found there; nobody has confirmed it yet.
        last_error: why there is no watch.
        left_out: what of the map cannot be used, and why, by host or service.
    """

    server: str | None = None
    heard_at: float | None = None
    from_disk: bool = False
    last_error: str | None = None
    left_out: dict[str, str] = field(default_factory=dict)


class MapFollower:
    """See the module's text.

    Args:
        static: what the file says; it has `control`.
        instance: names this process in the registration.
        version: of this proxy, for the map.
        apply: makes the proxy equal to a configuration. Raises NotApplied, and has changed nothing then.
        renewed: told the name of a host that is another process by now.
        trusted: told whom this host may believe from now on.
        random: returns numbers evenly spread over [0, 1).
        claim, state, displaced: as `HostRegistrar` takes them.

    Attributes:
        static: what the file says, by now.
        map: of the mesh.
        standing: how it follows.
        registration: of this host.
    """

    def __init__(
        self,
        static: Config,
        client: MapClient,
        *,
        instance: str,
        version: str,
        apply: Callable[[Config], ConfigDifference],
        renewed: Callable[[str], None],
        trusted: Callable[[TrustBundle], None],
        random: Callable[[], float],
        claim: Callable[[], Awaitable[None]] | None = None,
        state: StateLock | None = None,
        displaced: Callable[[bool], None] = lambda displaced: None,
    ) -> None:
        assert static.control is not None
        self.static = static
        self.map = MeshMap(static.host)
        self.standing = FollowerState()
        self.registration = HostRegistrar(
            client, self._record, self.map.doubt, random, claim, state=state, displaced=displaced
        )
        self._client = client
        self._instance, self._version = instance, version
        self._apply_config, self._renewed, self._trusted = apply, renewed, trusted
        self._effective = EffectiveConfig(static)
        self._applied = static
        self._held_back: dict[str, str] = {}
        self._why = ""
        self._behind = False
        self._backoff = Backoff(random, start=PAUSE, ceiling=LONGEST_PAUSE)
        self._path = mapfile.path_of(static.control.state_dir)
        self._dirty, self._unsaved = trio.Event(), trio.Event()
        self._save_error: str | None = None
        self._lost_because: str | None = None
        self._following, self._registering = trio.CancelScope(), trio.CancelScope()

    async def begin(self) -> None:
        """Take the last map from the disk over: make the proxy equal to it as far as it can be. Raises nothing; what
        is wrong with the map is said.
        """
        try:
            stored = await trio.to_thread.run_sync(mapfile.read, self._path, self.static.mesh, self.static.host)
        except mapfile.UnreadableMap as error:
            log.warning("the last map is of no use, starting without it", error=str(error))
            stored = None
        if stored is None:
            log.info("no map yet, starting with what the configuration says", servers=len(self._servers))
        else:
            self.map.restore(stored.epoch, stored.revision, stored.hosts)
            self.standing.heard_at, self.standing.from_disk = stored.confirmed_at, True
            age = round(max(0.0, time.time() - stored.confirmed_at))
            log.info("starting with the last map", hosts=len(self.map.hosts), revision=stored.revision, age_s=age)
        self._follow()

    def rebase(self, static: Config) -> ConfigDifference:
        """Follow another configuration file from now on. Returns what `apply` returned. Raises NotApplied, and nothing
        has changed.
        """
        effective = EffectiveConfig(static)
        found = self._apply_config(config := effective.config(self.map.hosts, self._held_back))
        self.static, self._effective, self._applied = static, effective, config
        self.standing.left_out = {**effective.left_out, **self._held_back}
        self.registration.renew()
        return found

    def preview(self, static: Config) -> Config:
        """The configuration that another file would give with this map."""
        return EffectiveConfig(static).config(self.map.hosts, self._held_back)

    def stop(self) -> None:
        """The proxy is about to end: follow no longer, but stay registered, and hear whom this host may believe."""
        self._following.cancel()

    async def leave(self, handed_over: bool) -> None:
        """Follow no longer, and say that this host goes, unless another process of it has taken over. Takes at most
        `registration.LEAVE_TIMEOUT`; raises nothing.
        """
        self.stop()
        self._registering.cancel()
        if not handed_over:
            await self.registration.leave()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow until cancelled; the map is on disk then, or since `stop`."""
        async with trio.open_nursery() as nursery:
            for part in (self._watch, self._register, self._apply_and_save):
                nursery.start_soon(part)
            task_status.started()

    async def _register(self) -> None:
        with self._registering:
            await self.registration.run()

    async def _apply_and_save(self) -> None:
        try:
            with self._following:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._apply)
                    nursery.start_soon(self._save)
        finally:
            with trio.move_on_after(SAVE_EVERY, shield=True):
                await self._write()

    # The map

    async def _watch(self) -> None:
        while True:
            try:
                async with self._client.watch(self.map.epoch, self.map.revision, self._instance) as watch:
                    self.map.watching(trio.current_time())
                    async for message in watch:
                        self._heard(watch.server)
                        self._take(message)
                error = f"{self.standing.server}: the server ended the watch"
            except (Unreachable, Denied) as caught:
                error = str(caught)
                if isinstance(caught, Denied) and caught.code in NEEDS_TOKEN:
                    self.registration.bar(caught)
            self._lost(error)
            await trio.sleep(self._backoff.next())

    def _heard(self, server: str) -> None:
        standing = self.standing
        if standing.server != server:
            log.info("following the control plane", server=server)
            self._backoff.reset()
            self._lost_because = None
        standing.server, standing.heard_at, standing.last_error = server, time.time(), None

    def unanswered(self, error: str) -> None:
        """No control server has answered yet, though the time for it is not over: somebody who has just started this
        proxy wants to know at once. It is said again as long as that lasts, summarised.
        """
        if self.standing.server is None:
            self.standing.last_error = error
            log.warning("no control server answers, trying on", kind=(), error=error)

    def _lost(self, error: str) -> None:
        level = log.debug if error == self._lost_because else log.warning
        event, hosts = "not following the control plane, going on with the last map", len(self.map.hosts)
        level(event, kind=(), error=error, hosts=hosts)
        self.standing.server, self.standing.last_error, self._lost_because = None, error, error

    def _take(self, message: WatchMessage) -> None:
        first = not self.map.epoch
        changed = self.map.take(message, trio.current_time())
        for name, before in changed.items():
            now = self.map.hosts.get(name)
            if before is not None and now is not None and before.instance != now.instance:
                self._renewed(name)
            if not first and name != self.static.host:
                for news in mapnews.changes(before, now):
                    log.info(news.event, **news.fields)
        if isinstance(message, MapSnapshot | MapChanges):
            if message.trust is not None:
                self._trusted(message.trust)
            present = self.static.host in self.map.hosts
            self.registration.seen(self.map.epoch, present or not self._known(message))
            if not present:
                self.registration.vacant()
            self._unsaved.set()
        if self.standing.from_disk or changed:
            self.standing.from_disk = False
            self._dirty.set()

    def _known(self, message: MapSnapshot | MapChanges) -> bool:
        """Whether the message is as new as this host's registration."""
        registered = self.registration.registered
        return registered is not None and message.revision >= registered.revision

    # The proxy

    async def _apply(self) -> None:
        while True:
            with trio.move_on_after(BEHIND if self._behind else HELD_BACK if self._held_back else float("inf")):
                await self._dirty.wait()
            self._dirty = trio.Event()
            began = time.perf_counter()
            self._follow()
            await trio.sleep(max(APPLY_EVERY, (time.perf_counter() - began) / SHARE))

    def _follow(self) -> None:
        """Make the proxy equal to the map, as far as this machine can."""
        before, self._held_back, self._behind, behind = self._held_back, {}, False, self._behind
        if not self._try(frozenset()):
            self._follow_in_part()
        if self._behind and not behind:
            log.warning("the map cannot be followed for now", error=self._why)
        if new := [name for name in self._held_back if name not in before]:
            log.warning("no socket for some services", services=new[:10], count=len(new), error=self._why)
        self.standing.left_out = {**self._effective.left_out, **self._held_back}

    def _follow_in_part(self) -> None:
        """One socket or more cannot be had, which must not keep all else from following: find out which, by halves."""
        config = self._effective.config(self.map.hosts)
        new = [name for name in config.upstreams if name not in self._applied.upstreams]
        out, left = frozenset(new), ATTEMPTS
        if not self._try(out):
            self._behind = True
            return
        groups = [new]
        while groups:
            group = groups.pop()
            left -= 1
            if left >= 0 and self._try(out - set(group)):
                out -= set(group)
            elif left >= 0 and len(group) > 1:
                groups += [group[len(group) // 2 :], group[: len(group) // 2]]
            else:
                self._held_back.update(dict.fromkeys(group, f"service without a socket: {self._why}"))

    def _try(self, without: frozenset[str]) -> bool:
        config = self._effective.config(self.map.hosts, without)
        try:
            self._apply_config(config)
        except NotApplied as error:
            self._why = error.problems[0]
            return False
        self._applied = config
        return True

    # The disk

    async def _save(self) -> None:
        while True:
            with trio.move_on_after(REFRESH):
                await self._unsaved.wait()
            self._unsaved = trio.Event()
            await self._write()
            await trio.sleep(SAVE_EVERY)

    async def _write(self) -> None:
        if self.standing.heard_at is None or self.standing.from_disk:
            return
        stored = mapfile.StoredMap(
            mesh=self.static.mesh,
            host=self.static.host,
            epoch=self.map.epoch,
            revision=self.map.revision,
            confirmed_at=self.standing.heard_at,
            hosts=tuple(self.map.hosts.values()),
        )
        try:
            await trio.to_thread.run_sync(_write, self._path, stored)
            self._save_error = None
        except OSError as error:
            why = error.strerror or str(error)
            if why != self._save_error:
                log.warning("the map is not on disk", file=self._path, error=why)
            self._save_error = why

    # This host

    @property
    def _servers(self) -> tuple[object, ...]:
        assert self.static.control is not None
        return self.static.control.servers

    def _record(self) -> HostRecord:
        static = self.static
        return HostRecord(
            name=static.host,
            address=static.links.listen.hostport,
            instance=self._instance,
            version=self._version,
            services=tuple(ServiceOffer(name=name) for name in static.services),
            segment=static.links.segment,
        )


def _write(path: str, stored: mapfile.StoredMap) -> None:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    mapfile.write(path, stored)
