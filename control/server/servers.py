"""The control servers of one store: which others there are, and that each has its share of the watchers.

Each keeps a record of itself in the store, on a lease: ``servers/ID``, where the ID is this process's own, so that a
server that was restarted is another one. The record is written when it has changed, every few seconds at most.
`control.server.spread` decides what follows from all of them.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress

import msgspec
import structlog
import trio
from msgspec import Struct

from control.api.tokens import MAX_SERVERS
from control.base.reading.addresses import TcpAddress, host_port, is_loopback, is_wildcard
from control.server.spread import WatcherSpread, takes
from control.store.base import LeaseGone, Put, Store, StoreError

__all__ = ["EVERY", "LEASE", "ROUND", "SERVERS", "ControlServers", "ServerEntry", "ServerRecord"]

log = structlog.get_logger()

SERVERS = "servers/"
EVERY = 5.0
"""Seconds between two looks at this server's own record."""
ROUND = 2
"""Looks in a round: whoever has gone somewhere else in one round is in that server's record before the next."""
LEASE = 3 * EVERY
"""Seconds that the record of a server that was killed lasts. Those who were its watchers count twice until then, which
only makes others wait."""
REVOKING = 1.0
"""Seconds that removing the record may take when this server stops."""


class ServerRecord(Struct, frozen=True, kw_only=True):
    """What the store has under ``servers/ID``.

    Attributes:
        name: of its configuration. address: where it listens; once a host has reached a server that listens on all
            addresses of its machine: the one at which that was.
        watchers, most: how many there are, and may be.
    """

    name: str
    address: str
    watchers: int
    most: int


class ControlServers:
    """See the module's text. `put` and `replace` are told what the store has.

    Args:
        name, address, most: for the record of this one.
    """

    def __init__(self, name: str = "", address: str = "", most: int = 0) -> None:
        self.id = secrets.token_hex(8)
        self._own = ServerRecord(name=name, address=address, watchers=0, most=most)
        self._others: dict[str, ServerRecord] = {}
        self._spread = WatcherSpread()
        self._said = self._learned = False

    @property
    def alone(self) -> bool:
        """Whether there is no other control server."""
        return not self._others

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where this server and the others are, this one first, as far as that is an address of one machine."""
        found = dict.fromkeys([self._own.address, *(each.address for each in self._others.values())])
        return tuple(each for each in found if _is_address(each))[:MAX_SERVERS]

    def reached(self, host: str) -> None:
        """A host of the mesh has reached this server at this IP address, under which others can, too. Where it listens
        on all addresses, that is what its record has from now on: the first one that is not this machine's alone.
        """
        own = self._own.address
        listened, _, port = own.rpartition(":")
        listened = listened.strip("[]")
        if is_wildcard(listened) or (self._learned and is_loopback(listened) and not is_loopback(host)):
            self._learned = True
            self._own = msgspec.structs.replace(self._own, address=TcpAddress(host, int(port)).hostport)

    def others(self) -> list[tuple[str, str]]:
        """Name and address of each of the others."""
        return [(each.name, each.address) for each in self._others.values()]

    def put(self, server: str, value: bytes | None) -> None:
        """What the store has now under ``servers/ID``; None: nothing. What cannot be read counts as nothing."""
        self._others.pop(server, None)
        if value is not None and server != self.id:
            with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                self._others[server] = msgspec.json.decode(value, type=ServerRecord)

    def replace(self, items: Mapping[str, bytes]) -> None:
        """All that the store has, by ID."""
        self._others.clear()
        for server, value in items.items():
            self.put(server, value)

    def takes(self, watchers: int) -> bool:
        """Whether this server, which has so many watchers, takes one that another server has asked to go."""
        return not self.alone and takes(watchers, [each.watchers for each in self._others.values()])

    def let_go(self, watchers: int, asked: int, went: int) -> int:
        """How many of this server's watchers to ask to go; the rest as `WatcherSpread.decide` takes it."""
        others = [each.watchers for each in self._others.values() if each.watchers < each.most]
        count = self._spread.decide(watchers, others, asked, went)
        said, self._said = self._said, self._spread.uneven and (self._said or count > 0)
        if self._said and not said:
            log.info(
                "other control servers have fewer watchers: letting some go there",
                kind=(),
                watchers=watchers,
                others={each.name: each.watchers for each in self._others.values()},
            )
        return count

    def record(self, watchers: int) -> ServerRecord:
        """That of this server, which has so many watchers."""
        return msgspec.structs.replace(self._own, watchers=watchers)


def _is_address(text: str) -> bool:
    try:
        return host_port(text).hostport == text
    except ValueError:  # every address of its machine, say
        return False


class ServerEntry:
    """Keeps the record of this server in the store, and knows when a round is over.

    Args:
        servers: whose record it is.
        watchers: how many there are.
        even_out: called after each round.
    """

    def __init__(
        self, store: Store, servers: ControlServers, watchers: Callable[[], int], even_out: Callable[[], None]
    ) -> None:
        self._store, self._servers, self._watchers, self._even_out = store, servers, watchers, even_out
        self._lease = 0
        self._written: ServerRecord | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep it until cancelled, and take it away then, within `REVOKING`. A store that does not take it is asked
        again the next time.
        """
        task_status.started()
        try:
            while True:
                for _ in range(ROUND):
                    await self._keep()
                    await trio.sleep(EVERY)
                self._even_out()
        finally:
            with trio.move_on_after(REVOKING, shield=True), suppress(StoreError):
                if self._lease:
                    await self._store.revoke(self._lease)

    async def _keep(self) -> None:
        try:
            await self._put(self._servers.record(self._watchers()))
        except LeaseGone:
            self._lease, self._written = 0, None
        except StoreError as error:
            log.debug("the store does not take this server's record", error=str(error))

    async def _put(self, record: ServerRecord) -> None:
        if self._lease:
            await self._store.keep_alive(self._lease)
        else:
            self._lease = await self._store.grant(LEASE)
        if record != self._written:
            await self._store.commit(put=[Put(SERVERS + self._servers.id, msgspec.json.encode(record), self._lease)])
            self._written = record
