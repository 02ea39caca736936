"""The transport below a client's TLS, paced during the handshake: in a round of the event loop only a few may receive.

A handshake is two steps of a millisecond or two each, and each step follows the receiving of something. When all
who have sent something were served in the same round of the event loop, a storm of newcomers would make rounds so long
that nobody's keep-alive is heard in time.
"""

from __future__ import annotations

import select

import trio
from trio.abc import Stream

__all__ = ["PacedStream", "has_left", "until_heard"]


class PacedStream(Stream):
    """Passes everything on to `stream`, but paces receiving. Closing this closes `stream`; errors are the stream's own.

    Attributes:
        turns: as many streams receive in one round as it has tokens; None: the handshake is over, no limit any more.
    """

    def __init__(self, stream: trio.SocketStream, turns: trio.CapacityLimiter) -> None:
        self._stream = stream
        self.turns: trio.CapacityLimiter | None = turns

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._stream.receive_some(max_bytes)
        if self.turns is not None:
            # Whoever gets a token gives it back in the next round. Cancelled here, the handshake is over anyway.
            async with self.turns:
                pass
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


def has_left(stream: trio.SocketStream) -> bool:
    """Whether the client has closed its end. Of those who had to wait, some have lost patience and come again: a
    handshake with nobody would take the time of those who are still there."""
    poll = select.poll()
    poll.register(stream.socket.fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))


async def until_heard(stream: trio.SocketStream) -> None:
    """Wait until the client closes its end, or says something."""
    await trio.lowlevel.wait_readable(stream.socket)
