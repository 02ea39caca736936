"""A watch as its reader has it: messages, one after the other, whichever control server they come from by then."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import msgspec
import trio

from control.api import mesh
from control.api.refusals import Unreachable, reason_of

__all__ = ["MAX_LINE", "MapWatch", "WatchStream", "finish"]

MAX_LINE = 64 << 20
"""Bytes of a watch's message, or of the whole map: 10,000 hosts with five services each take 4 MB."""
CLOSING = 1.0
"""Seconds that closing may take."""

_LINES: msgspec.json.Decoder[mesh.WatchLine] = msgspec.json.Decoder(mesh.WatchLine)


class WatchStream:
    """The lines that one control server sends. `aclose` closes the connection, and `http`, which is its own.

    Attributes:
        server: which one it is.
    """

    def __init__(self, server: str, response: httpx.Response, http: httpx.AsyncClient) -> None:
        self.server = server
        self._response, self._http = response, http
        self._chunks = response.aiter_raw()
        self._pending = bytearray()
        self._seen = 0

    async def line(self) -> mesh.WatchLine:
        """The next one. Raises StopAsyncIteration when the server has ended the watch, and Unreachable when the
        connection breaks, nothing has come for `mesh.SILENCE`, or what comes is no message.
        """
        with trio.move_on_after(mesh.SILENCE):
            while True:
                end = self._pending.find(b"\n", self._seen)
                if end >= 0:
                    return self._take(end)
                self._seen = len(self._pending)
                if self._seen > MAX_LINE:
                    raise Unreachable(f"{self.server}: a message of more than {MAX_LINE >> 20} MiB")
                try:
                    self._pending += await anext(self._chunks)
                except (httpx.TransportError, httpx.StreamError) as error:
                    raise Unreachable(f"{self.server}: {reason_of(error, mesh.SILENCE)}") from None
        raise Unreachable(f"{self.server}: nothing came for {mesh.SILENCE:.0f} s")

    def _take(self, end: int) -> mesh.WatchLine:
        line = bytes(self._pending[:end])
        del self._pending[: end + 1]
        self._seen = 0
        try:
            return _LINES.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Unreachable(f"{self.server}: a message that is not one of this version") from None

    async def aclose(self) -> None:
        """Takes at most `CLOSING` for each of the two; also when cancelled."""
        await finish(self._chunks)
        with trio.move_on_after(CLOSING, shield=True):
            await self._response.aclose()
        with trio.move_on_after(CLOSING, shield=True):
            await self._http.aclose()


class MapWatch:
    """The messages of one watch, by ``async for``.

    It ends when the server ends it (it stops, or has lost its own store), and raises as `WatchStream.line` does.

    When the server asks the watcher to go elsewhere, it goes on from where it was with another one, if one takes it;
    its reader does not notice. The first watch is closed when the second one is there.

    Args:
        stream: closed by `aclose`, or the one that has taken its place.
        elsewhere: the same watch at another server than this one, from this epoch and revision on; None: nobody takes
            it. Raises nothing.
        epoch, revision: that it goes on from.
    """

    def __init__(
        self,
        stream: WatchStream,
        elsewhere: Callable[[str, str, int], Awaitable[WatchStream | None]],
        epoch: str = "",
        revision: int = 0,
    ) -> None:
        self._stream, self._elsewhere = stream, elsewhere
        self._epoch, self._revision = epoch, revision

    @property
    def server(self) -> str:
        """Which one the messages come from."""
        return self._stream.server

    def __aiter__(self) -> AsyncIterator[mesh.WatchMessage]:
        return self

    async def __anext__(self) -> mesh.WatchMessage:
        while isinstance(line := await self._stream.line(), mesh.MapElsewhere):
            other = await self._elsewhere(self.server, self._epoch, self._revision)
            if other is not None:
                before, self._stream = self._stream, other
                await before.aclose()
        if isinstance(line, mesh.MapSnapshot):
            self._epoch = line.epoch
        self._revision = line.revision
        return line

    async def aclose(self) -> None:
        """Close the connection. Takes two seconds at most; also when cancelled."""
        await self._stream.aclose()


async def finish(chunks: AsyncIterator[bytes]) -> None:
    """End a body that was not read to its end. httpx reads it by generators within generators, of which closing the
    outermost leaves the others to the garbage collector; an exception out of the innermost ends them all."""
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            while True:
                await anext(chunks)
        except (StopAsyncIteration, httpx.TransportError, httpx.StreamError):
            pass
