"""The messages between the two processes: JSON, each behind its length, some with descriptors (SCM_RIGHTS).

Each trusts the other: they run as the same user, or the other one is root; and the old one hands over to a process in
its own namespaces only (`sender.serve`). But either of them may be another version of this program, so messages that
make no sense are expected, and an error.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress

import msgspec
import trio

from proxy.errors import HostlaneError

VERSION = 2
"""In version 1 descriptors came at once, with the names."""
LARGEST = 65536
"""Most bytes of a message: a path and a name or two."""
MOST_DESCRIPTORS = 2
"""Most descriptors in a message: a socket and the lock of its file."""
_LENGTH = struct.Struct(">I")


class HandoverError(HostlaneError):
    """The other process is gone, refuses, is too slow, or sends what makes no sense."""


class HandoverPeerGone(HandoverError):
    """The connection was closed without a ``no``: the other process has ended (see `sender.hand_over`)."""

    def __init__(self, detail: str = "") -> None:
        super().__init__("the other process is gone" + (f" ({detail})" if detail else ""))


class HandoverOffer(msgspec.Struct, frozen=True, kw_only=True, tag="offer"):
    """The old process's first message: who it is, and how many sockets follow. These are the same in all versions.

    ``lock``: device and inode of the lock of its state_dir (`proxy.mesh.statelock`); None: it has none.
    """

    version: int
    host: str
    pid: int
    sockets: int
    lock: tuple[int, int] | None = None


class HandoverSocket(msgspec.Struct, frozen=True, kw_only=True, tag="socket"):
    """The name of one listening socket.

    ``kind``: what it is for; ``address``: as the configuration writes it; ``family``: of the socket, AF_UNIX...;
    ``lock``: whether its file has one. The other fields: as in `outbound.sockets.InheritableListener`.
    """

    kind: str
    address: str
    family: int
    lock: bool = False
    birth: tuple[int, int, int, int] | None = None
    mode: int = 0o666
    owner: int | str | None = None
    group: int | str | None = None
    kept: bool = False


class HandoverDescriptors(msgspec.Struct, frozen=True, kw_only=True, tag="descriptors"):
    """One of the sockets that were named: its descriptor comes with the message, followed by that of its lock, if any.
    They follow ``yours``, in the order of the names.
    """

    kind: str
    address: str


class HandoverState(msgspec.Struct, frozen=True, kw_only=True, tag="state"):
    """The secret of the old process's state_dir, if it has one; the descriptor of the lock that was named comes with
    it. It follows ``yours``, before the descriptors of the sockets.
    """

    secret: str = ""


class HandoverStep(msgspec.Struct, frozen=True, kw_only=True, tag="word"):
    """A step: ``ready``, ``yours``, ``taken``; or ``no`` and why. ``seconds``: with ``taken``, how long the old process
    may let its streams finish.
    """

    word: str
    why: str = ""
    seconds: float = 0.0


Message = HandoverOffer | HandoverSocket | HandoverDescriptors | HandoverState | HandoverStep


async def send(sock: trio.SocketStream, message: Message, descriptors: Sequence[int] = ()) -> None:
    """Send a message, with duplicates of the descriptors; the caller keeps its own. Raises HandoverError."""
    data = _packed(message)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    try:
        sent = await sock.socket.sendmsg([data], rights)
        if sent < len(data):
            await sock.send_all(data[sent:])
    except (OSError, trio.BrokenResourceError) as error:
        raise _gone(error) from None


def say(sock: trio.SocketStream, word: HandoverStep) -> bool:
    """Send a step without a checkpoint, so that no timeout or cancellation can leave it unclear whether it was sent.
    Returns whether it was: the other process can read it from now on. Raises nothing.
    """
    data = _packed(word)
    try:
        return os.write(sock.socket.fileno(), data) == len(data)
    except OSError:
        return False


def last_word(sock: trio.SocketStream) -> HandoverStep | None:
    """Shut the socket down for reading, and return the step that had arrived before; None if none had, or only a part.

    The kernel orders the two, so both sides agree: either the step was queued before the shutdown, or `say` returns
    False in the process that sends it. Nothing that happens to either process afterwards changes that.
    """
    with suppress(OSError):
        sock.socket.shutdown(socket.SHUT_RD)
    data = b""
    with suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
        while len(data) <= LARGEST and (piece := os.read(sock.socket.fileno(), LARGEST)):
            data += piece
        body = data[_LENGTH.size :]
        if data[: _LENGTH.size] == _LENGTH.pack(len(body)):
            return msgspec.json.decode(body, type=HandoverStep)
    return None


def _packed(message: Message) -> bytes:
    body = msgspec.json.encode(message)
    return _LENGTH.pack(len(body)) + body


def _gone(error: OSError | trio.BrokenResourceError) -> HandoverError:
    if isinstance(error, ConnectionError):
        return HandoverPeerGone(str(error))
    return HandoverError(f"the other process is gone ({error})")


async def receive(sock: trio.SocketStream) -> tuple[Message, list[int]]:
    """The next message and its descriptors, which the caller owns. Raises HandoverError; no descriptor is open then."""
    descriptors: list[int] = []
    try:
        try:
            head = await _receive_rights(sock, descriptors)
            (length,) = _LENGTH.unpack(head + await _exactly(sock, _LENGTH.size - len(head)))
            if length > LARGEST:
                raise HandoverError(f"the other process sends a message of {length} bytes")
            return msgspec.json.decode(await _exactly(sock, length), type=Message), descriptors
        except (OSError, trio.BrokenResourceError) as error:
            raise _gone(error) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise HandoverError(f"the other process says what makes no sense: {error}") from None
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise


async def _receive_rights(sock: trio.SocketStream, descriptors: list[int]) -> bytes:
    room = socket.CMSG_SPACE(MOST_DESCRIPTORS * array.array("i").itemsize)
    data, rights, flags, _ = await sock.socket.recvmsg(_LENGTH.size, room, socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in rights:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found = array.array("i")
            found.frombytes(content[: len(content) - len(content) % found.itemsize])
            descriptors += found
    if flags & socket.MSG_CTRUNC:
        raise HandoverError("descriptors were lost: raise the limit on open files (ulimit -n)")
    if not data:
        raise HandoverPeerGone
    return data


async def _exactly(sock: trio.SocketStream, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        piece = await sock.receive_some(length - len(data))
        if not piece:
            raise HandoverPeerGone
        data += piece
    return bytes(data)


async def expect(sock: trio.SocketStream, word: str) -> HandoverStep:
    """The next message, which must be this step. Raises HandoverError for any other; for ``no``, with its reason."""
    message, descriptors = await receive(sock)
    for descriptor in descriptors:
        os.close(descriptor)
    if isinstance(message, HandoverStep) and message.word == "no":
        raise HandoverError(message.why)
    if not isinstance(message, HandoverStep) or message.word != word:
        raise HandoverError(f"the other process does not say {word!r}, but {message}")
    return message
