"""The proxy at the door: takes listeners and sockets of containers from it, shows it those that it has, makes the Unix
sockets that containers have mounted, and closes what a container had when it has ended.

While the door is away everything goes on, but for containers that come and go: listeners serve, and the sockets in
stock are enough for some dozens of calls to each service that is offered.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable, Iterator
from functools import partial
from time import monotonic

import structlog
import trio
from msgspec import structs

from control.base.backoff import Backoff
from control.base.reading.addresses import ip_port
from control.base.system.peercred import credentials_of
from proxy.config.schema import Config, DoorConfig, ServiceConfig
from proxy.door.channel import Broken, Channel
from proxy.door.messages import (
    PROTOCOL,
    SOCKET,
    Drop,
    End,
    Ended,
    FromDoor,
    Held,
    Hello,
    Keep,
    Listed,
    Listener,
    NoSockets,
    Offer,
    Shown,
    Sockets,
    Stock,
    Want,
    Withdraw,
)
from proxy.door.namespaces import cookie_of
from proxy.errors import CloseReason, NotApplied
from proxy.outbound.directories import ContainerSockets
from proxy.outbound.inside import InsideListener, Place
from proxy.outbound.upstreams import Outbound
from proxy.pool.pools import Pools
from proxy.pump.options import KeepAlive, LocalSocket
from proxy.pump.stock import InsideAddress
from proxy.telemetry.doorview import DoorState

__all__ = ["Doorkeeper"]

log = structlog.get_logger()

PAUSE, LONGEST_PAUSE = 0.05, 0.5
"""Seconds: windows of the pause before the door is tried again (`control.base.backoff`). It is on this machine."""
APPLY_AGAIN = 1.0
"""Seconds until a change is tried again that could not be applied: while another process is taking over."""
SOCKETS_AGAIN = 5.0
"""Seconds until sockets of containers are tried again that could not be had: somebody has to do something first."""
FIRST_WORDS = 2.0
"""Seconds that a starting proxy waits for a door that is there. It says what there is as soon as it knows it: a while
after its own start, where the engine has many containers."""
_STREAM = int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK)


class Doorkeeper:
    """See the module's text. Owns the listeners inside containers (`Outbound.inside`) and their stocks.

    Args:
        apply: makes the proxy equal to what containers call and offer. Raises NotApplied.

    Attributes:
        came, went: called when the door is there, and when it has gone with all that it has kept.
    """

    def __init__(self, config: DoorConfig, outbound: Outbound, pools: Pools, apply: Callable[[], object]) -> None:
        self._path = f"{config.directory}/{SOCKET}"
        self._outbound, self._pools, self._apply = outbound, pools, apply
        self._inside, self._stocks = outbound.inside, outbound.context.connector.stocks
        self._directories = outbound.directories
        self._offers: dict[str, InsideAddress] = {}
        self._channel: Channel[FromDoor] | None = None
        self._listed, self._begun = False, trio.Event()
        self._state, self._since = DoorState(False, 0.0, ""), monotonic()
        self._named: set[Place | str] = set()
        self._named_directories: set[str] = set()
        self._unapplied, self._pause = trio.Event(), APPLY_AGAIN
        self._refused: frozenset[str] = frozenset()
        self._stocks.ask = self._want
        self.came: Callable[[], None] = lambda: None
        self.went: Callable[[], None] = lambda: None

    def added_to(self, static: Config) -> Config:
        """The configuration with the services that containers offer. What stands in the file stays as it is."""
        offered = {name: ServiceConfig(deliver=address) for name, address in self._offers.items()}
        return structs.replace(static, services={**offered, **static.services})

    def tell_refused(self, static: Config) -> None:
        """Log, once, which offers are left out of a configuration that comes into force."""
        refused = frozenset(name for name in self._offers if name in static.services)
        for name in sorted(refused - self._refused):
            why = f"hostlane.offer: {name} stands under services, which has the last word"
            log.error("not as its labels ask", error=f"container {self._offers[name].container}: {why}")
        self._refused = refused

    def state(self) -> DoorState:
        """Whether the door is there, for how long it is so or has been away, and why."""
        return self._state._replace(seconds=monotonic() - self._since)

    def _became(self, connected: bool, error: str) -> None:
        if connected != self._state.connected:
            self._since = monotonic()
        self._state = DoorState(connected, 0.0, error)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be at the door, whenever it is there, until cancelled. It has started when the door has said what there is,
        is away, or has said nothing for FIRST_WORDS.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow)
            nursery.start_soon(self._try_again)
            with trio.move_on_after(FIRST_WORDS):
                await self._begun.wait()
            task_status.started()

    async def _follow(self) -> None:
        backoff = Backoff(random.random, start=PAUSE, ceiling=LONGEST_PAUSE)
        said = ""
        while True:
            why = "it has gone"
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
                    await self._connect(sock)
                    said = ""
                    backoff.reset()
                    await self._attend(sock)
            except* Broken as group:
                why = str(group.exceptions[0])
            self._begun.set()
            self._channel, self._inside.kept = None, False
            self._became(False, why)
            self.went()
            self._stocks.unanswered()
            if why != said:
                log.warning("the door is away; what is open inside containers goes on", socket=self._path, error=why)
            said = why
            await trio.sleep(backoff.next())

    async def _connect(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        try:
            sock.connect(self._path)
            uid = credentials_of(sock).uid
        except OSError as error:
            raise Broken(error.strerror or str(error)) from None
        if uid not in (0, os.geteuid()):
            raise Broken(f"user {uid} listens there; allowed: root, or user {os.geteuid()}")

    async def _attend(self, sock: socket.socket) -> None:
        channel = self._channel = Channel(sock.dup(), FromDoor)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(channel.send)
                channel.say(Hello())
                for (namespace, address), listener in self._inside:
                    channel.say(Held(namespace, address.hostport), [listener.sock])
                channel.say(Shown())
                self._listed, self._named, self._named_directories = False, set(), set()
                while True:
                    message, descriptors = await channel.receive()
                    taken = self._take(message, descriptors)
                    for descriptor in descriptors[taken:]:
                        os.close(descriptor)
        except OSError as error:  # no descriptors left
            raise Broken(error.strerror or str(error)) from None
        finally:
            channel.close()

    def keep(self, name: str, sock: socket.socket | None) -> bool:
        """Have the door keep a socket for the next proxy, or drop what has that name (`fdstore.Keep`)."""
        if self._channel is None or not self._listed:
            return False
        try:
            self._channel.say(Drop(name) if sock is None else Keep(name), [] if sock is None else [sock])
        except OSError:  # no descriptors left
            return False
        return True

    def _want(self, namespace: int, family: int, count: int) -> None:
        if self._channel is not None:
            self._channel.say(Want(namespace, family, count))
        else:
            self._stocks.add(namespace, family, [])

    # What the door says

    def _take(self, message: FromDoor, descriptors: list[int]) -> int:
        """Returns how many of the descriptors are somebody's now."""
        taken = 0
        if isinstance(message, Hello):
            if message.protocol != PROTOCOL:
                raise Broken(f"it speaks protocol {message.protocol}, and this proxy {PROTOCOL}: use one version")
        elif isinstance(message, Listener):
            taken = self._listener(message, descriptors)
        elif isinstance(message, Offer):
            self._offer(message)
        elif isinstance(message, Withdraw):
            self._withdraw(message.namespace, message.service)
        elif isinstance(message, Stock):
            family = socket.AF_INET6 if message.family == 6 else socket.AF_INET
            sockets = [LocalSocket(family, _STREAM, 0, descriptor) for descriptor in descriptors]
            self._stocks.add(message.namespace, message.family, sockets)
            self._outbound.context.pump.settle()
            taken = len(descriptors)
        elif isinstance(message, End):
            self._end(message)
        elif isinstance(message, Sockets):
            self._named_directories.add(message.directory)
            self._directories.wanted[message.directory] = ContainerSockets(tuple(message.services), message.caller)
            self._changed()
        elif isinstance(message, NoSockets):
            self._directories.wanted.pop(message.directory, None)
            self._changed()
        elif isinstance(message, Listed):
            self._all_named()
        return taken

    def _listener(self, message: Listener, descriptors: list[int]) -> int:
        place = message.namespace, ip_port(message.listen)
        self._named.add(place)
        if descriptors:
            sock = socket.socket(fileno=descriptors[0])
            settings = KeepAlive.of(self._outbound.settings)
            listener = InsideListener(sock, message.service, message.caller, message.container)
            self._inside.add(place, listener, settings)
        elif place in self._inside:
            self._inside.renamed(place, message.service, message.caller, message.container)
        self._changed()
        return len(descriptors[:1])

    def _offer(self, message: Offer) -> None:
        where = ip_port(message.deliver)
        address = InsideAddress(where.host, where.port, message.namespace, message.container)
        self._named.add(message.service)
        self._offers[message.service] = address
        self._stocks.open(address)
        self._changed()

    def _withdraw(self, namespace: int, service: str) -> None:
        found = self._offers.get(service)
        if found is not None and found.namespace == namespace:
            del self._offers[service]
            self._changed()

    def _all_named(self) -> None:
        """Whatever the door has not named is of containers that have ended while it was away."""
        for place, _ in self._inside:
            if place not in self._named:
                self._inside.remove(place)
        for service in [service for service in self._offers if service not in self._named]:
            del self._offers[service]
        for name in self._directories.wanted.keys() - self._named_directories:
            del self._directories.wanted[name]
        alive = {place[0] for place, _ in self._inside} | {address.namespace for address in self._offers.values()}
        self._stocks.keep(alive)
        self._listed = self._inside.kept = True
        self._became(True, "")
        self._begun.set()
        log.info("at the door", socket=self._path, listeners=len(list(self._inside)), offers=len(self._offers))
        self._changed()
        self._directories.sweep()
        self.came()

    def _end(self, message: End) -> None:
        namespace = message.namespace
        self._inside.end(namespace)
        for service in [name for name, address in self._offers.items() if address.namespace == namespace]:
            del self._offers[service]
        self._stocks.close(namespace)
        for end in self._connected(namespace):
            end()
        self._outbound.context.pump.settle()
        if self._channel is not None:
            self._channel.say(Ended(namespace))
        log.info("container ended", container=message.container)
        self._changed()

    def _connected(self, namespace: int) -> Iterator[Callable[[], None]]:
        """What ends each stream and call that has a socket of this namespace."""
        context = self._outbound.context
        lanes = [lane for pool in self._pools.everywhere for each in pool.sessions for lane in each.streams.values()]
        for lane in lanes:
            if lane.sock is not None and _is_in(lane.sock, namespace):
                yield partial(lane.guard, lane.abort, CloseReason.ABORTED)
        for splice in list(context.splices):
            if any(_is_in(end.sock, namespace) for end in (splice.caller, splice.service)):
                yield partial(splice.end, CloseReason.ABORTED)
        for call in list(context.calls):
            if call.caller_socket is not None and _is_in(call.caller_socket, namespace):
                yield partial(call.give_up, CloseReason.ABORTED)

    # The configuration

    def _changed(self) -> None:
        """Make the proxy equal to what there is, once all of it was said."""
        if not self._listed:
            return
        try:
            self._apply()
        except NotApplied as error:
            log.debug("containers: not applied yet", error=str(error))
            self._try_after(APPLY_AGAIN)
        else:
            if self._directories.problems:
                self._try_after(SOCKETS_AGAIN)
        self._inside.listen()
        self._outbound.context.pump.settle()

    def _try_after(self, seconds: float) -> None:
        self._pause = seconds
        self._unapplied.set()

    async def _try_again(self) -> None:
        while True:
            await self._unapplied.wait()
            self._unapplied = trio.Event()
            await trio.sleep(self._pause)
            self._changed()


def _is_in(sock: LocalSocket, namespace: int) -> bool:
    """Whether a socket is of this namespace. (One that is closed is of none.)"""
    try:
        return sock.family != socket.AF_UNIX and cookie_of(sock) == namespace
    except OSError:
        return False
