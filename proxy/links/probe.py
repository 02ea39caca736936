"""The question whether anybody listens at a peer's address: a TCP connection that is closed without a byte. (The peer's
proxy takes it for a monitor's look at its port: `links.carry.NothingSaid`.)
"""

from __future__ import annotations

import enum
import errno
from collections.abc import Iterator

import trio

from control.base.reading.addresses import TcpAddress
from proxy.errors import HandshakeError
from proxy.links.connect import connect
from proxy.links.device import LinkDevice

OTHER_FAMILY = frozenset({None, errno.EAFNOSUPPORT, errno.ENETUNREACH})
"""What comes of an address of a name that cannot be tried from here: it is of another family than the source, or than
all networks of this host. (None: trio could not bind to the source.)"""


class Answer(enum.Enum):
    """What came of it."""

    LISTENING = enum.auto()
    """Somebody accepts connections there, or will: the kernel answers for a process that is about to."""
    REFUSED = enum.auto()
    """The host is there and nobody listens, or a firewall says so."""
    NONE = enum.auto()
    """Nobody has answered, or something else went wrong, on this host or on the way: it says nothing of the peer."""


async def ask(address: TcpAddress, *, device: LinkDevice, seconds: float) -> Answer:
    """Ask once. Nothing is left open, cancelled or not.

    Args:
        device: as in `connect`.
        seconds: the longest wait for an answer.
    """
    answer = Answer.NONE
    with trio.move_on_after(seconds):
        try:
            stream = await connect(address, device)
        except (OSError, HandshakeError) as error:
            refused = set(_reasons(error)) - OTHER_FAMILY == {errno.ECONNREFUSED}
            answer = Answer.REFUSED if refused else Answer.NONE
        else:
            stream.socket.close()
            answer = Answer.LISTENING
    return answer


def _reasons(error: BaseException) -> Iterator[int | None]:
    """The error number of each address that was tried: trio wraps one error for each."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _reasons(each)
    elif error.__cause__ is not None:
        yield from _reasons(error.__cause__)
    else:
        yield error.errno if isinstance(error, OSError) else -1
