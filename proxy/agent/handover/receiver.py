"""The new side: learns which listening sockets the running proxy has, gets ready, receives them, and takes its place.

Until they come, a socket of no use stands in for each: whatever needs the socket can be built around it. When the
descriptor comes it takes the number of the stand-in (dup2(2)), which is then that socket for everybody who holds it.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import NamedTuple, Self

import structlog
import trio

from control.base.system.commanders import user_refusal
from control.base.system.peercred import credentials_of
from control.base.system.unixsock import SocketIdentity
from proxy.agent.handover.inheritance import InheritedListeners
from proxy.agent.handover.protocol import (
    VERSION,
    HandoverDescriptors,
    HandoverError,
    HandoverOffer,
    HandoverPeerGone,
    HandoverSocket,
    HandoverState,
    HandoverStep,
    Message,
    expect,
    receive,
    say,
)
from proxy.agent.handover.sender import ANSWER
from proxy.errors import StartError
from proxy.mesh.statelock import StateLock
from proxy.outbound.sockets import InheritableListener

log = structlog.get_logger()

FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)
NO_LISTENER = (errno.ENOENT, errno.ECONNREFUSED)


class PredecessorEnded(StartError):
    """The running proxy has ended before it handed anything over: start again, and there will be nobody. (The system
    closes its sockets one after the other, so it may seem to be there for a moment yet.)
    """


class StandIn(NamedTuple):
    """What takes the place of a socket, and of its lock's descriptor, until they come."""

    kind: str
    address: str
    sock: socket.socket
    lock: int | None


class Predecessor:
    """The running proxy that this process takes over from, and the connection to it.

    Attributes:
        pid: its process id.
        lock: device and inode of the lock of its state_dir; None: it has none.
        secret: of its state_dir, after `replace`; empty: it has none, or has not said it.
    """

    def __init__(self, sock: trio.SocketStream, offer: HandoverOffer, stand_ins: list[StandIn]) -> None:
        # Not SO_PEERCRED's pid: that names the process that called listen() first, which may have handed the socket
        # over since.
        self._sock, self.pid, self.lock, self._stand_ins = sock, offer.pid, offer.lock, stand_ins
        self.secret = ""

    @classmethod
    async def meet(cls, path: str, host: str, into: InheritedListeners) -> Self | None:
        """Connect to the proxy that listens at `path`, and put a stand-in for each of its sockets `into` the inherited
        ones; None: no proxy listens there.

        Raises StartError, with one line that says why it cannot be taken over from; PredecessorEnded if it is ending.
        """
        try:
            sock = await trio.open_unix_socket(path)
        except OSError as error:
            if error.errno in NO_LISTENER:
                return None
            raise StartError(f"cannot take over from the proxy behind {path}: {error.strerror}") from None
        try:
            with trio.fail_after(ANSWER):
                return cls(sock, *await _receive_names(sock, host, into))
        except BaseException as error:
            await trio.aclose_forcefully(sock)
            if isinstance(error, HandoverPeerGone):
                raise PredecessorEnded(f"cannot take over from the proxy behind {path}: {error}") from None
            if isinstance(error, HandoverError | trio.TooSlowError):
                why = str(error) if isinstance(error, HandoverError) else f"no answer in {ANSWER:g} s"
                raise StartError(f"cannot take over from the proxy behind {path}: {why}") from None
            raise

    async def replace(self, seconds: float, state: StateLock | None) -> bool:
        """This process is ready: take over. The old one may let its streams finish for `seconds`. On return it accepts
        nothing any more, what stood in for its sockets is these, and `state` holds the lock; False if it has ended
        meanwhile. Raises StartError if it keeps its sockets, PredecessorEnded if it has ended before all of them came.
        """
        came = False
        try:
            with trio.fail_after(ANSWER):
                say(self._sock, HandoverStep(word="ready"))  # not sent if it has closed; then it may have sent why
                await expect(self._sock, "yours")
                await self._receive_state(state)
                for each in self._stand_ins:
                    await _receive_one(self._sock, each)
                came = True
                if not say(self._sock, HandoverStep(word="taken", seconds=seconds)):
                    await expect(self._sock, "no")
        except trio.TooSlowError:
            raise StartError(f"process {self.pid} does not hand over: no answer in {ANSWER:g} s") from None
        except HandoverPeerGone:
            log.warning("the proxy to take over from has ended", from_pid=self.pid)
            if not came:
                raise PredecessorEnded(f"process {self.pid} has ended before it handed over: start again") from None
            return False
        except HandoverError as error:
            raise StartError(f"process {self.pid} does not hand over: {error}") from None
        finally:
            self._sock.socket.close()
        return True

    def close(self) -> None:
        """Close the connection. Before `replace`, the old process then goes on as before. Idempotent."""
        self._sock.socket.close()

    async def _receive_state(self, state: StateLock | None) -> None:
        """Receive the lock of its state_dir, for `state`, and the secret. Raises HandoverError, and StartError."""
        item, descriptors = await receive(self._sock)
        try:
            if isinstance(item, HandoverStep) and item.word == "no":
                raise HandoverError(item.why)
            if not isinstance(item, HandoverState) or len(descriptors) != (0 if self.lock is None else 1):
                raise HandoverError(f"it sends {_name(item)} instead of its state_dir's lock")
            self.secret = item.secret
            if state is not None:
                state.inherit(descriptors.pop() if descriptors else None, self.pid)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

async def _receive_names(
    sock: trio.SocketStream, host: str, into: InheritedListeners
) -> tuple[HandoverOffer, list[StandIn]]:
    """Put a stand-in for each of the old process's sockets `into` the inherited ones. Returns what it has said of
    itself, and the stand-ins. Raises HandoverError.
    """
    # No more than the user can be known: the pid is that of the process which called listen() first, which may be gone.
    if (why := user_refusal(credentials_of(sock.socket), sock.socket)) is not None:
        raise HandoverError(f"{why} hand over to this process")
    message = await _receive_plain(sock)
    if isinstance(message, HandoverStep):
        raise HandoverError(message.why)
    if not isinstance(message, HandoverOffer):
        raise HandoverError(f"it says {message} instead of an offer")
    if message.version != VERSION:
        age = "an older" if message.version < VERSION else "a newer"
        raise HandoverError(
            f"it is of {age} version, which hands over in another way: this one step is a restart (docs/upgrade.md)"
        )
    if message.host != host:
        raise HandoverError(f"it is the proxy of host {message.host!r}, this is that of {host!r}")
    found = []
    for _ in range(message.sockets):
        item = await _receive_plain(sock)
        if not isinstance(item, HandoverSocket):
            raise HandoverError(f"it sends {item} instead of the name of a socket")
        stand_in = _stand_in(item)
        birth = SocketIdentity(*item.birth) if item.birth is not None else None
        inheritable = InheritableListener(
            stand_in.sock, stand_in.lock, birth, item.mode, item.owner, item.group, item.kept
        )
        into.put(item.kind, item.address, inheritable)
        found.append(stand_in)
    return message, found


async def _receive_plain(sock: trio.SocketStream) -> Message:
    """A message without descriptors; such as come all the same, as from an older version, are closed."""
    message, descriptors = await receive(sock)
    for descriptor in descriptors:
        os.close(descriptor)
    return message


def _stand_in(named: HandoverSocket) -> StandIn:
    if named.family not in FAMILIES:
        raise HandoverError(f"it sends a socket of family {named.family}: {named.address[:60]!r}")
    try:
        sock = socket.socket(named.family)
        try:
            lock = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) if named.lock else None
        except BaseException:
            sock.close()
            raise
    except OSError as error:
        raise HandoverError(f"opening a socket: {error.strerror}") from None
    return StandIn(named.kind, named.address, sock, lock)


async def _receive_one(sock: trio.SocketStream, stand_in: StandIn) -> None:
    """Receive the descriptors of one socket, and put them in the place of its stand-in, unless that is closed: nobody
    wanted the socket. Raises HandoverError.
    """
    item, descriptors = await receive(sock)
    try:
        wanted = HandoverDescriptors(kind=stand_in.kind, address=stand_in.address)
        if isinstance(item, HandoverStep) and item.word == "no":
            raise HandoverError(item.why)
        if item != wanted or len(descriptors) != (1 if stand_in.lock is None else 2):
            raise HandoverError(f"it sends {_name(item)} instead of the descriptors of {stand_in.address}")
        if stand_in.sock.fileno() >= 0:
            os.dup2(descriptors[0], stand_in.sock.fileno(), inheritable=False)
            stand_in.sock.setblocking(False)
            if stand_in.lock is not None:
                os.dup2(descriptors[1], stand_in.lock, inheritable=False)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _name(message: Message) -> str:
    """Of the kind of a message, without what is in it: that may be a secret."""
    return str(message.__struct_config__.tag)
