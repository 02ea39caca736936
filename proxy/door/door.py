"""The process: follows the engine, and has everything open in containers that their labels ask for.

It goes by what *is*, not by what has happened: each event makes it look at that container, all are looked at when the
engine has been away and every minute, and what is open is then made equal to what should be. So a lost event costs a
minute at most, and the end of a container, which closes the file of its namespace, a second.
"""

from __future__ import annotations

import os
import pwd
import signal
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial

import structlog
import trio

from control.base.system import unixsock
from control.base.system.socketpath import SocketPathError
from control.base.system.unixsock import bind_unix
from proxy.cdi import messages as hook_messages
from proxy.config.schema import DoorConfig
from proxy.door import namespaces
from proxy.door.desired import Container, desired
from proxy.door.directories import Directories
from proxy.door.engine import Engine, EngineEvent
from proxy.door.following import follow
from proxy.door.hooks import Hooks
from proxy.door.labels import concerned
from proxy.door.messages import SOCKET
from proxy.door.presence import Presence
from proxy.door.proxies import Proxies
from proxy.door.rooms import AGAIN, Rooms
from proxy.errors import StartError

log = structlog.get_logger()

LOOK = 1.0
"""Seconds between looks whether namespaces are still there."""
RECONCILE = 60.0
"""Seconds between looks at all containers."""
LINGER = 20.0
"""Seconds that it waits at its end for a proxy that just starts."""
DIRECTORY_MODE, HOOK_DIRECTORY_MODE = 0o750, 0o700
_ENDS = ("die", "destroy")


class Door:
    """See the module's text. `run` runs it.

    Attributes:
        kept: the sockets that it keeps for the next proxy.
    """

    def __init__(self, config: DoorConfig) -> None:
        self._config = config
        self._containers: dict[str, Container] = {}
        self._asked: dict[str, bool] = {}
        self._changed = trio.Event()
        self._complete = False
        self._said: set[str] = set()
        uid, _ = account(config.user)
        self._proxies = Proxies(uid, self._look_again)
        self.kept = self._proxies.kept
        self._rooms = Rooms(config.namespaces, self._proxies.tell)
        self._directories = Directories(self._proxies.tell)
        self._presence = Presence(config.directory)
        self._proxies.rooms, self._proxies.directories = self._rooms, self._directories
        self._engine = Engine(config.engine)
        self._hooks = Hooks(self._known, self._look_again, self._ended_id)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until SIGTERM or SIGINT. Listeners stay open where a proxy has them. Raises StartError."""
        try:
            namespaces.own_cookie()
        except OSError:
            raise StartError("the door needs Linux 5.14 (SO_NETNS_COOKIE)") from None
        make_directory(self._config)
        if self._config.cdi is not None:
            make_hook_directory(self._config.cdi)
        with ExitStack() as stack:
            kind = socket.SOCK_SEQPACKET
            bound = stack.enter_context(bind_unix(f"{self._config.directory}/{SOCKET}", mode=0o660, kind=kind))
            hooks = self._config.cdi and stack.enter_context(
                bind_unix(f"{self._config.cdi}/{hook_messages.SOCKET}", mode=0o600, kind=kind)
            )
            try:
                with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                    async with self._engine as engine, trio.open_nursery() as nursery:
                        nursery.start_soon(self._proxies.serve, bound.socket)
                        if hooks:
                            nursery.start_soon(self._hooks.serve, hooks.socket)
                        nursery.start_soon(self._follow, engine)
                        nursery.start_soon(self._reconcile)
                        nursery.start_soon(self._watch)
                        log.info("door ready", engine=self._config.engine, socket=bound.path)
                        task_status.started()
                        async for _ in signals:
                            break
                        await self._leave()
                        nursery.cancel_scope.cancel()
            finally:
                self._rooms.close()
                self.kept.close()
                self._hooks.close()
        log.info("door stopped")

    async def _leave(self) -> None:
        """Wait a while for a proxy to leave the listeners to: if nobody has them callers are refused."""
        if not self._is_alone:
            return
        log.info("waiting for a proxy to leave the listeners to", seconds=LINGER)
        with trio.move_on_after(LINGER):
            while self._is_alone:  # noqa: ASYNC110 - two things end it, and it is rare
                await trio.sleep(LINGER / 200)

    @property
    def _is_alone(self) -> bool:
        return any(room.listeners for room in self._rooms) and not self._proxies.told

    # What there is

    async def _follow(self, engine: Engine) -> None:
        def happened(event: EngineEvent, looks: trio.Nursery) -> None:
            self._happened(event, engine, looks)

        await follow(engine, self._config.engine, partial(self._list, engine), happened, RECONCILE)

    async def _list(self, engine: Engine) -> None:
        found = await engine.containers()
        for id in [id for id in self._containers if id not in found and not self._hooks.holds(id)]:
            del self._containers[id]
        for id in found:
            await self._inspect(engine, id)
        self._complete = True
        self._look_again()

    def _happened(self, event: EngineEvent, engine: Engine, looks: trio.Nursery) -> None:
        known = self._containers.get(event.id)
        if known is None and not event.ours:
            return
        if event.action in _ENDS and known is not None and not self._hooks.holds(event.id):
            self._ended(known)
        elif event.action == "create" and known is None:
            self._containers[event.id] = event.container
            self._look_again()
        if event.id in self._asked:
            self._asked[event.id] = True  # what is being answered may be older than this
        else:
            self._asked[event.id] = False
            looks.start_soon(self._inspect_until_sure, engine, event.id)

    async def _inspect_until_sure(self, engine: Engine, id: str) -> None:
        try:
            again = True
            while again:
                self._asked[id] = False
                await self._inspect(engine, id)
                self._look_again()
                again = self._asked[id]
        finally:
            del self._asked[id]

    async def _inspect(self, engine: Engine, id: str) -> None:
        found = await engine.inspect(id)
        if found is None:
            self._containers.pop(id, None)
        else:
            self._containers[id] = found

    async def _watch(self) -> None:
        """Look whether namespaces are gone whose end nobody has told of: the engine is away, or has lost the event."""
        while True:
            await trio.sleep(LOOK)
            if self._presence.look():
                self._look_again()
            for room in self._rooms:
                if room.gone and (known := self._containers.get(room.room.container)) is not None:
                    self._ended(known)

    def _ended(self, container: Container) -> None:
        """At once: the address of its interface is free again only when everything in its namespace is closed."""
        self._containers[container.id] = replace(container, running=False, namespace="")
        self._rooms.end(container.id)
        self._hooks.end(container.id)
        self._look_again()

    # Containers that hooks hand over

    async def _known(self, id: str) -> Container | None:
        found = self._containers.get(id) or await self._engine.listed(id)
        if found is not None and concerned(found.labels):
            self._containers.setdefault(id, found)
        return found

    def _ended_id(self, id: str) -> None:
        if (known := self._containers.get(id)) is not None:
            self._ended(known)
        else:
            self._rooms.end(id)
            self._hooks.end(id)

    # What should be

    def _look_again(self) -> None:
        self._changed.set()

    async def _reconcile(self) -> None:
        while True:
            with trio.move_on_after(AGAIN if self._rooms.unfinished else float("inf")):
                await self._changed.wait()
            self._changed = trio.Event()
            complete, wanted = self._complete, desired(self._hooks.placed(self._containers.values()))
            self._directories.become(wanted.directories)  # first: a container's start does not wait for it
            await self._rooms.become(wanted)
            self._hooks.settle(wanted, self._rooms)
            problems = {*wanted.problems, *self._rooms.problems, *self._presence.problems(wanted.attaching)}
            for line in sorted(problems - self._said):
                log.error("not as its labels ask", error=line)
            self._said = problems
            if complete:
                self._rooms.complete()
                self._proxies.listed()


def account(user: int | str) -> tuple[int, int]:
    """Number and group of the user that the proxy runs as. Raises StartError."""
    try:
        found = pwd.getpwuid(user) if isinstance(user, int) else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        if isinstance(user, int):
            return user, user  # as in the image, where nobody else has a number
        raise StartError(f"door.user: there is no user {user!r} here; allowed: a name or a number") from None
    return found.pw_uid, found.pw_gid


def make_directory(config: DoorConfig) -> None:
    """Make the directory of the door's socket: this process's, and open to the proxy's group. Raises StartError."""
    path, (_, gid) = config.directory, account(config.user)
    try:
        with _explained("door.directory", path):
            if _own_directory("door.directory", path, DIRECTORY_MODE).st_gid != gid:
                os.chown(path, -1, gid)
                os.chmod(path, DIRECTORY_MODE)
    except PermissionError as error:
        raise StartError(
            f"door.directory {path}: {error.strerror}; run the door with the proxy's group (user: 0:{gid})"
        ) from None


def make_hook_directory(path: str) -> None:
    """Make the directory of the socket for hooks: this process's alone. Raises StartError."""
    try:
        with _explained("door.cdi", path):
            _own_directory("door.cdi", path, HOOK_DIRECTORY_MODE)
    except PermissionError as error:
        raise StartError(f"door.cdi {path}: {error.strerror}") from None


def _own_directory(key: str, path: str, mode: int) -> os.stat_result:
    unixsock.make_directory(os.path.dirname(path))
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        pass
    found = os.stat(path)
    if found.st_uid != os.geteuid():
        raise StartError(f"{key} {path}: it belongs to user {found.st_uid}; allowed: user {os.geteuid()}")
    if stat.S_IMODE(found.st_mode) != mode:
        os.chmod(path, mode)
    return found


@contextmanager
def _explained(key: str, path: str) -> Iterator[None]:
    """Turns what can go wrong into a StartError; but for PermissionError."""
    try:
        yield
    except PermissionError:
        raise
    except (SocketPathError, OSError) as error:
        raise StartError(f"{key} {path}: {getattr(error, 'strerror', None) or error}") from None
