"""The connection that a process which was taken over keeps with the one that accepts: its *leash*.

A pair of sockets exists from the start; the far end goes to each process that takes over. Should the one that has it
end, nobody would be at the other end: so the process also listens, from the takeover on, at a socket in run_dir
(`path_of`), where the next one that is started finds it (`predecessors`). The kernel closes a leash when either end has
ended, which changes nothing for the other one.

Each message (SOCK_SEQPACKET) is one word. The process at the far end says ``end``, this one must end sooner; ``link``,
with the descriptor of a connection that a peer means for it; ``may LIMIT PER_PEER``, the bytes that it may hold. The
one at the near end says ``uses BYTES``, what it holds, once a second, and ``count …``, the numbers of its metrics
(`telemetry.metrics.handedon`), as often, and at its end. Either ignores words that it does not know: they
are of later versions.
"""

from __future__ import annotations

import array
import os
import select
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Protocol

import structlog
import trio

from control.base.system.accepting import PAUSE
from control.base.system.commanders import Commanders
from control.base.system.unixsock import BoundUnixSocket, bind_unix
from proxy.agent.handover.memoryshares import Share
from proxy.errors import StartError

log = structlog.get_logger()

END, LINK, MAY, USES = b"end", b"link", b"may", b"uses"
COUNT = b"count "
"""What a word begins with that tells numbers."""
LARGEST = 64
"""Most bytes of a word, but for those."""
LARGEST_COUNT = 64 * 1024
"""Most bytes of those: a third of what the kernel keeps for a connection by default."""
LAST = 2.0
"""Seconds that the last numbers of a process that ends may take."""
MOST_MEMORY = 1 << 50
"""Bytes, more than any limit has."""
TELL = 1.0
"""Seconds between two words about memory."""
MOST_LEASHES = 8
"""Most connections at a time at the socket in run_dir. One is needed."""
RIGHTS = socket.CMSG_SPACE(array.array("i").itemsize)
"""Room for the one descriptor that a word brings."""
PREFIX, SUFFIX = "old-", ".sock"


class Follower(Protocol):
    """The process at the near end: it was taken over, and does what the one that accepts says."""

    def hurry(self) -> None:
        """End sooner."""

    def link(self, connection: socket.socket) -> None:
        """A peer means this connection for this process, which owns it from now on."""

    def may(self, share: Share) -> None:
        """Hold no more than that."""

    def uses(self) -> int:
        """Bytes that it holds."""


def path_of(run_dir: str, instance: str) -> str:
    """Where the process `instance` (HELLO) listens after it was taken over."""
    return f"{run_dir}/{PREFIX}{instance}{SUFFIX}"


class Counts(Protocol):
    """The numbers of the process at the near end."""

    async def tell(self, say: Callable[[bytes], Awaitable[None]]) -> None:
        """Say in packets what is new. Raises what `say` raises: that packet was not sent."""


class Leash:
    """The near end, and the far one until another process has it.

    Args:
        instance: this process, as HELLO names it.

    Attributes:
        name: its process id, and its instance, which tells it from a process of another container.
    """

    def __init__(self, instance: str) -> None:
        self.name = f"{os.getpid()}-{instance}"
        self.instance = instance
        self._near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._near.setblocking(False)
        self._found: BoundUnixSocket | None = None

    def let_go(self, run_dir: str) -> None:
        """Another process has the far end: close it here, and listen in run_dir for the one after that. If that cannot
        be, a line is logged.
        """
        self.far.close()
        try:
            self._found = bind_unix(path_of(run_dir, self.instance), mode=0o600, kind=socket.SOCK_SEQPACKET)
        except StartError as error:
            log.warning("a process that is started after a crash will not find this one", error=str(error))

    async def follow(self, follower: Follower, commanders: Commanders, counts: Counts | None = None) -> None:
        """After `let_go`: do what is said through the leash, and by `commanders` who connect, and tell `counts`. Until
        cancelled; then the last of those are told.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_talk, self._near.dup(), follower, counts)
            if self._found is None:
                return
            limit = trio.Semaphore(MOST_LEASHES)
            while True:
                await limit.acquire()
                connection = await _accept(self._found.socket)
                nursery.start_soon(_serve, connection, follower, commanders, limit, counts)

    async def last(self, counts: Counts) -> None:
        """After `let_go`, when nobody is in `follow` any more, or has never been: tell the numbers once more, within
        LAST. Not to a process that has found this one after a crash: there `follow` has done it.
        """
        await _count_last(self._near, counts)

    def close(self) -> None:
        """Close both ends, and remove the socket in run_dir. Nobody may be in `follow`. Idempotent."""
        self._near.close()
        self.far.close()
        if self._found is not None:
            self._found.close()


async def _accept(listener: socket.socket) -> socket.socket:
    while True:
        await trio.lowlevel.wait_readable(listener)
        try:
            return listener.accept()[0]
        except BlockingIOError:
            continue
        except OSError:  # most likely there are no descriptors
            await trio.sleep(PAUSE)


async def _serve(
    connection: socket.socket,
    follower: Follower,
    commanders: Commanders,
    limit: trio.Semaphore,
    counts: Counts | None,
) -> None:
    try:
        if (why := commanders.refusal(connection)) is None:
            await _talk(connection, follower, counts)
        else:
            log.warning("a process may not say what this one is to do", kind=(), error=why)
    finally:
        connection.close()
        limit.release()


async def _talk(sock: socket.socket, follower: Follower, counts: Counts | None) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_tell, sock, follower)
        if counts is not None:
            nursery.start_soon(_count, sock.dup(), counts)
        await _heed(sock, follower)
        nursery.cancel_scope.cancel()


async def _tell(sock: socket.socket, follower: Follower) -> None:
    while True:
        with suppress(OSError):  # nobody reads for now, or nobody is there any more
            send(sock, b"%s %d" % (USES, follower.uses()))
        await trio.sleep(TELL)


async def _count(sock: socket.socket, counts: Counts) -> None:
    """Tell the numbers every second, and when this is cancelled. Closes `sock`."""
    with sock:
        try:
            while True:
                with suppress(OSError), trio.move_on_after(TELL):  # as in `_tell`; what was not sent is told next time
                    await counts.tell(partial(_say, sock))
                await trio.sleep(TELL)
        finally:
            await _count_last(sock, counts)


async def _count_last(sock: socket.socket, counts: Counts) -> None:
    with suppress(OSError), trio.CancelScope(shield=True, deadline=trio.current_time() + LAST):
        await counts.tell(partial(_say, sock))


async def _say(sock: socket.socket, packet: bytes) -> None:
    while True:
        try:
            return send(sock, COUNT + packet)
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)


async def _heed(sock: socket.socket, follower: Follower) -> None:
    """Do what comes through a leash, and close it when the other end has gone."""
    with sock:
        sock.setblocking(False)
        while True:
            await trio.lowlevel.wait_readable(sock)
            try:
                word, descriptors = _read(sock)
            except BlockingIOError:
                continue
            except OSError:
                return
            if not word:
                return
            if word == LINK and len(descriptors) == 1:
                _link(descriptors.pop(), follower)
            for descriptor in descriptors:
                os.close(descriptor)
            if word == END:
                follower.hurry()
            elif (numbers := numbers_in(word, MAY, 2)) is not None:
                follower.may(Share(*numbers))


def _read(sock: socket.socket) -> tuple[bytes, list[int]]:
    """The next word and its descriptors, which the caller owns; empty: the other end has gone. Raises OSError."""
    word, rights, _, _ = sock.recvmsg(LARGEST, RIGHTS, socket.MSG_CMSG_CLOEXEC)
    found = array.array("i")
    for level, kind, content in rights:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(content[: len(content) - len(content) % found.itemsize])
    return word, list(found)


def numbers_in(word: bytes, kind: bytes, count: int) -> list[int] | None:
    """The numbers behind a word of that kind; None: it is another one."""
    name, *numbers = word.split(b" ")
    if name != kind or len(numbers) != count or not all(each.isdigit() for each in numbers):
        return None
    found = [int(each) for each in numbers]
    return found if max(found) <= MOST_MEMORY else None


def _link(descriptor: int, follower: Follower) -> None:
    try:
        connection = socket.socket(fileno=descriptor)
    except OSError:
        os.close(descriptor)
        return
    if connection.type != socket.SOCK_STREAM or connection.family not in (socket.AF_INET, socket.AF_INET6):
        connection.close()
        return
    connection.setblocking(False)
    follower.link(connection)


def send(sock: socket.socket, word: bytes, *descriptors: int) -> None:
    """Say a word at the far end, with duplicates of descriptors. Never waits. Raises OSError: BlockingIOError if the
    process at the near end does not read.
    """
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    sock.sendmsg([word], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def heard(sock: socket.socket, counted: Callable[[bytes], None] = lambda packet: None) -> int | None:
    """At the far end: the bytes that the process at the near end holds, as it has said last; None: it has said nothing
    new. Never waits. Raises nothing. `counted` gets the packets of numbers.
    """
    found, resets = None, 0
    while True:
        try:
            word = sock.recv(LARGEST_COUNT, socket.MSG_DONTWAIT)
        except ConnectionResetError:
            # It has ended with words of ours unread. That is reported once, before its last words.
            resets += 1
            if resets > 1:
                return found
            continue
        except OSError:
            return found
        if not word:
            return found
        if word.startswith(COUNT):
            counted(word[len(COUNT) :])
        elif (numbers := numbers_in(word, USES, 1)) is not None:
            found = numbers[0]


def has_ended(sock: socket.socket) -> bool:
    """Whether the process at the near end has. What it has said may still be there to be read."""
    poll = select.poll()
    poll.register(sock, 0)  # POLLHUP and POLLERR are always reported
    return bool(poll.poll(0))


def listening_in(run_dir: str) -> list[str]:
    """The instances of the processes that have a socket in run_dir, in the order in which they were taken over. Some
    may have ended. Raises nothing.
    """
    found: list[tuple[int, str]] = []
    with suppress(OSError):
        for entry in os.scandir(run_dir):
            if entry.name.startswith(PREFIX) and entry.name.endswith(SUFFIX):
                with suppress(OSError):
                    made = entry.stat(follow_symlinks=False).st_mtime_ns
                    found.append((made, entry.name.removeprefix(PREFIX).removesuffix(SUFFIX)))
    return [instance for _, instance in sorted(found)]
