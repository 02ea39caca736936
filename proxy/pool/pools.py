"""The pools of all peers, while peers come and go."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Container, Iterator, Mapping
from functools import partial
from typing import Protocol

import trio

from control.base.reading.addresses import without_scope
from proxy.config.schema import Config, PeerConfig
from proxy.errors import CloseReason
from proxy.pool.pool import Pool
from proxy.pool.sessions import IpAddress, ip_of
from proxy.pool.staggeredclose import Cut, staggered_close
from proxy.pump.link import Link
from proxy.pump.session import LaneSession


class PoolTask(Protocol):
    """A task of `Pools.run`: the life of one pool, or the end of a removed one."""

    async def __call__(self, *, task_status: trio.TaskStatus[None]) -> None: ...


class Pools(Mapping[str, Pool]):
    """The pools by the peers' names, in the order of the configuration. The pool of a peer that was removed is not in
    here any more, so no new call finds it, but keeps its links until their streams have ended. If the peer comes back
    before that, it gets the same pool, with all that it has learnt.

    Args:
        make: makes a pool, from the peer's name and configuration, and whether an upstream needs it.
        forget: called with the name when the pool of a removed peer has ended.
        settle: `Pump.settle`.
    """

    def __init__(
        self, make: Callable[[str, PeerConfig, bool], Pool], forget: Callable[[str], None], settle: Callable[[], None]
    ) -> None:
        self._make, self._forget, self._settle = make, forget, settle
        self._pools: dict[str, Pool] = {}
        self._leaving: dict[str, tuple[Pool, trio.CancelScope]] = {}
        self._lives: dict[Pool, trio.CancelScope] = {}
        self._needed: set[str] = set()
        self._addresses: frozenset[IpAddress | None] = frozenset()
        self._named: list[Pool] = []
        self._hushed = False
        self._send, self._receive = trio.open_memory_channel[PoolTask](float("inf"))

    def __getitem__(self, name: str) -> Pool:
        return self._pools[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._pools)

    def __len__(self) -> int:
        return len(self._pools)

    @property
    def everywhere(self) -> list[Pool]:
        """All pools, also those of peers that were removed."""
        return [*self._pools.values(), *(pool for pool, _ in self._leaving.values())]

    def expects(self, source: str) -> bool:
        """Whether a peer is configured to be at this IP address, as getpeername(2) writes it, or is configured by a
        name and was there at its last link.
        """
        number = _numeric(source)
        if number is None:
            return False
        return number in self._addresses or any(pool.met_at == number for pool in self._named)

    def cut(self, revoked: Container[str]) -> None:
        """End the sessions and links, of all peers, that were made with one of these certificates (serial numbers)."""
        for pool in self.everywhere:
            pool.cut(revoked)
        self._settle()

    def bound(self) -> tuple[set[str], bool]:
        """The IP addresses of this host that links have, and whether sessions wait for a link."""
        links = [link for pool in self.everywhere for link in pool.links]
        return {local_ip(link) for link in links}, any(pool.sessions.suspended for pool in self.everywhere)

    def lost(self, addresses: Container[str]) -> None:
        """This host does not have these IP addresses any more: give the links up that have one of them."""
        for pool in self.everywhere:
            for link in pool.links:
                if (address := local_ip(link)) in addresses:
                    link.doom(CloseReason.LINK_LOST, f"this host does not have the address {address} any more")
        self._settle()

    def hurry(self) -> None:
        """Dial at once for all sessions that wait: what has kept the last dial from success may be over."""
        for pool in self.everywhere:
            if pool.sessions.suspended:
                pool.hurry()

    def hush(self, hushed: bool) -> None:
        """True: take no new streams and links of peers (`Pool.drain`), also of those that come; False: take them again.
        Idempotent.
        """
        if hushed != self._hushed:
            self._hushed = hushed
            for pool in self._pools.values():
                pool.drain() if hushed else pool.revive()

    def adopt(self, config: Config, names: Collection[str], needed: set[str], settings: bool) -> None:
        """Follow another configuration from now on. Raises nothing.

        Args:
            names: the peers that are new, gone or different in it.
            needed: the peers of which an upstream names a service.
            settings: whether other sections differ too, so that the pools of unchanged peers must adopt it as well.
        """
        changed = {*names, *(needed ^ self._needed), *(self.keys() if settings else ())}
        self._needed = needed
        for name in changed:
            peer = config.peers.get(name)
            if peer is None:
                self._remove(name, config.limits.stop_timeout)
            elif (pool := self._pools.get(name)) is not None:
                pool.adopt(config, peer, name in needed)
            else:
                self._pools[name] = self._returned(config, name, peer) or self._new(name, peer)
        if names:
            self._pools = {name: self._pools[name] for name in config.peers}
            numeric = {name: _numeric(peer.address.host) for name, peer in config.peers.items()}
            self._addresses = frozenset(numeric.values()) - {None}
            self._named = [self._pools[name] for name, address in numeric.items() if address is None]

    def _returned(self, config: Config, name: str, peer: PeerConfig) -> Pool | None:
        """The pool of a peer that was removed and is back before its streams have ended; None: there is none."""
        pool, retirement = self._leaving.pop(name, (None, None))
        if pool is not None and retirement is not None:
            retirement.cancel()
            pool.adopt(config, peer, name in self._needed)
            if not self._hushed:
                pool.revive()
        return pool

    def _new(self, name: str, peer: PeerConfig) -> Pool:
        pool = self._make(name, peer, name in self._needed)
        if self._hushed:
            pool.drain()
        self._send.send_nowait(partial(self._live, pool))
        return pool

    def _remove(self, name: str, seconds: float) -> None:
        pool = self._pools.pop(name, None)
        if pool is not None:
            pool.drain()
            scope = trio.CancelScope()
            self._leaving[name] = pool, scope
            self._send.send_nowait(partial(self._retire, name, pool, scope, seconds))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the pools, those that `adopt` adds later too, until cancelled; links that they dialled end then."""
        async with trio.open_nursery() as nursery:
            for _ in range(self._receive.statistics().current_buffer_used):
                await nursery.start(self._receive.receive_nowait())
            task_status.started()
            async for job in self._receive:
                await nursery.start(job)

    async def _live(self, pool: Pool, *, task_status: trio.TaskStatus[None]) -> None:
        with trio.CancelScope() as self._lives[pool]:
            await pool.run(task_status=task_status)

    async def _retire(
        self, name: str, pool: Pool, scope: trio.CancelScope, seconds: float, *, task_status: trio.TaskStatus[None]
    ) -> None:
        """Let the streams of a removed peer finish within `seconds`; in the last part of that time those that are left
        are ended bit by bit (`staggered_close`). A session without a link keeps its own time to get one, and then has
        `seconds` too: a peer that an outage has cut off from the control plane is removed as well, and comes back.
        `scope` is cancelled when it does: then nothing more ends.
        """
        task_status.started()
        with scope:
            while any(True for _ in pool.sessions):
                await self._finish(pool, seconds)
                await _resumed(pool.sessions.suspended)
        if scope.cancel_called:
            return
        del self._leaving[name]
        self._lives.pop(pool).cancel()
        self._forget(name)


    async def _finish(self, pool: Pool, seconds: float) -> None:
        """Let the streams that have a link finish within `seconds`, and then end its session."""
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(staggered_close, trio.current_time() + seconds, partial(_cuts, pool), self._settle)
                for session in pool.sessions:
                    if not session.suspended:
                        await session.ended.wait()
                nursery.cancel_scope.cancel()
        for session in _linked(pool):
            session.stop(CloseReason.STOPPED)
        self._settle()


def local_ip(link: Link) -> str:
    """This host's IP address of a link, as the kernel writes it where it lists addresses."""
    return str(ip_of(link.local_address))


def _linked(pool: Pool) -> list[LaneSession]:
    return [session for session in pool.sessions if not session.suspended]


def _cuts(pool: Pool) -> list[Cut]:
    """For each of the pool's streams that have a link a function that ends it."""
    lanes = [lane for session in _linked(pool) for lane in session.streams.values()]
    return [partial(lane.guard, lane.abort, CloseReason.STOPPED) for lane in lanes]


def _numeric(host: str) -> IpAddress | None:
    """None for a name. An interface (``%eth0``) is left out, and an IPv4 address as an IPv6 socket writes it is one."""
    try:
        found = ipaddress.ip_address(without_scope(host))
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


async def _resumed(suspended: Collection[LaneSession]) -> None:
    """Return when one of these sessions has a link again or is over, or if there are none."""
    async with trio.open_nursery() as nursery:

        async def wait(session: LaneSession) -> None:
            await session.awake.wait()
            nursery.cancel_scope.cancel()

        for session in suspended:
            nursery.start_soon(wait, session)
