"""The out-buffer of a session, which is its replay buffer too.

A session numbers every byte that it sends (its *offset*), and keeps each until the peer acknowledges it. Bytes are
written once, straight into a slab, and stay there. They are sent, kept, and after a lost link sent again from the same
memory, so keeping costs no copy.

::

      acked             sent               end             (offsets, bytes since the session began)
        |  kept for replay |  not yet sent  |  free
    ....[=== slab ===][=== slab ===][=== slab ====.......]
        `---- older, in order ----´ `--- current ---´

The fast path (proxy/pump/turn.py) receives straight into ``buf`` behind ``pos`` while ``pos <= limit``, without asking
for `ReplayBuffer.room`.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol, cast

from proxy.core.syscalls import put_bytes, put_word, word_at
from proxy.errors import ProtocolError
from proxy.mux.frames import HEADER_SIZE, KEY_SHIFT, LENGTH_MASK
from proxy.mux.sizes import FAST_LIMIT, HIGH_WATER, SLAB_SIZE


class Slab:
    """A fixed piece of memory, and the session offsets between which its bytes lie; `end` of the current slab is where
    its memory ends.
    """

    __slots__ = ("buf", "end", "mem", "start")

    def __init__(self) -> None:
        self.buf = bytearray(SLAB_SIZE)
        self.mem = memoryview(self.buf)
        self.start = self.end = 0


class Slabs(Protocol):
    """Where slabs come from (`slabpool.SlabPool`)."""

    def take(self) -> Slab:
        """Take a slab out; to be returned with `give`."""

    def give(self, slab: Slab) -> None:
        """Put a slab back. Nothing may refer to its memory any more."""


class Flusher:
    """Sends what is written to an out-buffer."""

    def flush(self) -> None:
        """Send what can be sent without waiting."""

    def crashed(self) -> None:
        """`flush` raised an unexpected exception, which has been logged: end what it belongs to."""


class FlushQueue:
    """Out-buffers with something to send, each once, in the order in which they came. (A list takes memory, and gives
    it back, at every turn.)

    Attributes:
        first, last: those of them; `last` says nothing while there is no `first`.
    """

    def __init__(self) -> None:
        self.first: ReplayBuffer | None = None
        self.last = cast(ReplayBuffer, None)

    def add(self, out: ReplayBuffer) -> None:
        """Put an out-buffer behind all others, unless it waits already."""
        if not out.dirty:
            out.dirty = True
            if self.first is None:
                self.first = out
            else:
                self.last.behind = out
            self.last = out

    def take(self) -> ReplayBuffer | None:
        """Take the first one out; None: there is none."""
        out = self.first
        if out is not None:
            self.first, out.behind, out.dirty = out.behind, None, False
        return out


class ReplayBuffer:
    """What one session has written and the peer has not acknowledged, sent or not. `close` gives the slabs back.

    Attributes:
        acked, sent: offsets, as in the figure of the module; base: offset of the current slab's first byte.
        pos: where in the current slab (`buf`, `mem`) the next frame goes.
        limit: the fast path may write while `pos` is not above it; -1 after `room` has refused.
        flusher: sends its bytes, and says so by setting this; None: nothing does, or does any more.
        dirty: whether the buffer is in `touched` already, and `behind` the next one there; deferrable: whether it is in
            `later`.
        overrun: control frames were dropped, because the peer acknowledged nothing for too long; the link must end.
        frames: how many were written; sends: how many sends took some of their bytes; resent: bytes that a rewind has
            given back to be sent again. Whoever sends counts `sends`.

    Args:
        touched: a buffer with new bytes puts itself in this queue, so that the driver knows what to send when the turn
            ends.
        later: a list for the same, of buffers with deferrable frames only. They are sent with the next frame that is
            not deferrable, at the latest when the driver pauses (`Pump.settle`).
        bound: bytes kept for replay above which data is refused room. Control frames, without which the peer could not
            acknowledge anything, are kept up to twice the bound; a peer that lets it come to that does not read.
    """

    __slots__ = (
        "_bound",
        "_closed",
        "_current",
        "_older",
        "_pool",
        "acked",
        "base",
        "behind",
        "buf",
        "deferrable",
        "dirty",
        "flusher",
        "frames",
        "later",
        "limit",
        "mem",
        "overrun",
        "pos",
        "resent",
        "sends",
        "sent",
        "touched",
    )

    def __init__(
        self, pool: Slabs, touched: FlushQueue, later: list[ReplayBuffer], bound: int
    ) -> None:
        self.touched, self.later = touched, later
        self.flusher: Flusher | None = None
        self.behind: ReplayBuffer | None = None
        self._pool = pool
        self._bound = max(bound, 2 * SLAB_SIZE)
        self._older: deque[Slab] = deque()
        self.base = self.sent = self.acked = 0
        self.frames = self.sends = self.resent = 0
        self.dirty = self.deferrable = self.overrun = self._closed = False
        self._use(pool.take())

    def _use(self, slab: Slab) -> None:
        slab.start, slab.end = self.base, self.base + SLAB_SIZE
        self._current = slab
        self.buf, self.mem = slab.buf, slab.mem
        self.pos = 0
        self.limit = FAST_LIMIT

    @property
    def end(self) -> int:
        """Offset behind the last byte that was written."""
        return self.base + self.pos

    @property
    def unsent(self) -> int:
        """Bytes written and not yet given to a link."""
        return self.base + self.pos - self.sent

    @property
    def unacked(self) -> int:
        """Bytes kept for replay, sent or not."""
        return self.base + self.pos - self.acked

    def room(self, wanted: int) -> bool:
        """Make room at ``pos`` for a frame with `wanted` payload bytes, in another slab if need be. False is
        back-pressure: too much is unsent or unacknowledged. The next flush or ACK is the time to ask again.
        """
        need = HEADER_SIZE + wanted
        end = self.base + self.pos
        if end - self.sent > HIGH_WATER or end - self.acked + need > self._bound:
            self.limit = -1
            return False
        if self.pos + need > SLAB_SIZE:
            self._roll()
        self.limit = FAST_LIMIT
        return True

    def data(self, word: int, length: int) -> None:
        """Make a DATA frame of `length` bytes that lie behind the place for its header, at ``pos + HEADER_SIZE``.

        Args:
            word: the header, without the length.
        """
        pos = self.pos
        put_word(self.buf, pos, word + length)
        self.pos = pos + HEADER_SIZE + length
        self.frames += 1
        self.touch()

    def put(self, kind: int, stream_id: int, payload: bytes = b"", deferrable: bool = False) -> None:
        """Write a control frame. It is never refused room; beyond twice the bound it is dropped and `overrun` is set.

        Args:
            deferrable: the frame alone is no reason to send; see `later`.
        """
        pos, length = self.pos, len(payload)
        # At or below `limit` the current slab, which is taken already, has room for any control frame.
        if pos > self.limit:
            if not self._takes_control(HEADER_SIZE + length):
                return
            pos = self.pos
        put_word(self.buf, pos, kind << 56 | stream_id << KEY_SHIFT | length)
        body = pos + HEADER_SIZE
        self.pos = body + length
        self.frames += 1
        if length:
            put_bytes(self.buf, body, payload)
        if not deferrable:
            self.touch()
        elif not (self.dirty or self.deferrable):
            self.deferrable = True
            self.later.append(self)

    def _takes_control(self, size: int) -> bool:
        """Make room at ``pos`` for a control frame of `size` bytes. False at twice the bound, and `overrun` is set."""
        if self.base + self.pos - self.acked + size > 2 * self._bound:
            if not self._closed:
                self.overrun = True
                self.touch()
            return False
        if self.pos + size > SLAB_SIZE:
            self._roll()
        return True

    def touch(self) -> None:
        """Ask the driver to flush this buffer when the turn ends, or earlier."""
        self.touched.add(self)

    def _roll(self) -> None:
        """Go on in another slab, or at the start of this one if the peer has acknowledged everything."""
        end = self.base + self.pos
        if self.acked == end:
            slab = self._current
        else:
            self._current.end = end
            self._older.append(self._current)
            slab = self._pool.take()
        limit, self.base = self.limit, end
        self._use(slab)
        self.limit = limit

    def unsent_slab(self) -> Slab:
        """The slab that the next unsent byte lies in, or will. Of it, the bytes from ``sent`` to ``min(end, slab.end)``
        are unsent. Whoever sends some of them adds their number to ``sent``.
        """
        if self.sent >= self.base:
            return self._current
        for slab in self._older:
            if self.sent < slab.end:
                return slab
        raise AssertionError("unsent bytes lie in no slab")

    def unsent_view(self) -> memoryview:
        """The unsent bytes of `unsent_slab`; empty when all are sent."""
        slab = self.unsent_slab()
        return slab.mem[self.sent - slab.start : min(self.end, slab.end) - slab.start]

    def acknowledge_untrusted(self, offset: int) -> None:
        """The peer has everything below `offset`. Raises only ProtocolError (for bytes that were never sent)."""
        if offset > self.sent:
            raise ProtocolError(f"ACK of offset {offset}, but only {self.sent} bytes were sent")
        self.acked = max(self.acked, offset)
        while self._older and self._older[0].end <= self.acked:
            self._pool.give(self._older.popleft())
        if self.limit < 0:  # room was refused: the flush lets the lanes that wait for it ask again
            self.touch()

    def rewind_untrusted(self, offset: int) -> None:
        """Send again from `offset` on, over a new link: the peer has everything below it and nothing else.

        Raises only ProtocolError, and changes nothing then: if the bytes from there on are not kept or were never
        sent, or if no frame begins there.
        """
        if not self.acked <= offset <= self.sent:
            raise ProtocolError(f"resuming at offset {offset}, but {self.acked} to {self.sent} are kept")
        if not self._begins_frame(offset):
            raise ProtocolError(f"resuming at offset {offset}, in the middle of a frame")
        self.resent += self.sent - offset
        self.sent = offset
        self.acknowledge_untrusted(offset)
        self.touch()

    def _begins_frame(self, offset: int) -> bool:
        """Whether a frame begins, or the last one ends, at `offset`, which is kept. Each slab begins with a frame."""
        slab, start = self._current, self.base
        for older in self._older:
            if older.start <= offset < older.end:
                slab, start = older, older.start
                break
        pos, wanted = 0, offset - start
        while pos < wanted:
            pos += HEADER_SIZE + (word_at(slab.buf, pos) & LENGTH_MASK)
        return pos == wanted

    def close(self) -> None:
        """Give all slabs back. Idempotent. Afterwards `room` says no and `put` drops frames."""
        if not self._closed:
            self._closed = True
            self.limit = -1
            self._bound = 0  # nothing may be written: the slabs may be another session's by now
            self._older.append(self._current)
            while self._older:
                self._pool.give(self._older.popleft())
