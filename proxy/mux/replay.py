"""The out-buffer of a session, which is its replay buffer too.

A session numbers every byte that it sends (its *offset*), and keeps each until the peer acknowledges it. Bytes are
written once, straight into a slab, and stay there: sending, keeping and sending again after a lost link are three
looks at the same memory, so keeping costs no copy.

::

      acked             sent               end             (offsets, bytes since the session began)
        |  kept for replay |  not yet sent  |  free
    ....[=== slab ===][=== slab ===][=== slab ====.......]
        `---- older, in order ----´ `--- current ---´

The fast path (proxy/pump/turn.py) writes at ``buf[pos]`` itself while ``pos <= limit``; everything else goes through
the methods.
"""

from __future__ import annotations

from collections import deque

from proxy.errors import ProtocolError
from proxy.mux.frames import HEADER, HEADER_SIZE, KEY_SHIFT, LENGTH_MASK

SLAB_SIZE = 256 * 1024
"""Bytes. Four times the largest frame, so that at most a quarter is left unused at its end."""
CHUNK = 16 * 1024
"""Bytes that the fast path may read from a local socket at once; one that fills it is bulk and leaves the fast path."""
FAST_LIMIT = SLAB_SIZE - HEADER_SIZE - CHUNK
HIGH_WATER = 256 * 1024
"""Unsent bytes above which no local socket of the session is read."""
_pack_into = HEADER.pack_into


class Slab:
    """A fixed piece of memory and the offsets of the session's bytes that it holds."""

    __slots__ = ("buf", "end", "mem", "start")

    def __init__(self) -> None:
        self.buf = bytearray(SLAB_SIZE)
        self.mem = memoryview(self.buf)
        self.start = self.end = 0


class SlabPool:
    """Recycles slabs among all sessions of a proxy: the last one given back is taken first, while it is warm in the
    cache.
    """

    def __init__(self, keep: int = 8) -> None:
        self._free: list[Slab] = []
        self._keep = keep
        self.in_use = 0

    def take(self) -> Slab:
        """A slab; the caller gives it back."""
        self.in_use += 1
        return self._free.pop() if self._free else Slab()

    def give(self, slab: Slab) -> None:
        """Take a slab back."""
        self.in_use -= 1
        if len(self._free) < self._keep:
            self._free.append(slab)

    @property
    def bytes_held(self) -> int:
        """Memory held by slabs, in use or free."""
        return (self.in_use + len(self._free)) * SLAB_SIZE


class ReplayBuffer:
    """See the module's text. One owner, the session; `close` gives the slabs back.

    Attributes:
        dirty: whether the buffer is in `touched` already; deferrable: whether it is in `later`.
        overrun: control frames were dropped, because the peer acknowledged nothing for too long; the link must end.

    Args:
        touched: every buffer that was written to puts itself in this list once, so that the driver knows what to send
            when its turn ends.
        later: the same for what may wait a little, and goes with the next bytes that may not.
        bound: bytes kept at most for replay; data is refused room beyond it. Control frames, without which the peer
            could not acknowledge anything, may exceed it once more by the same amount; a peer that lets it come to
            that does not read.
    """

    __slots__ = (
        "_bound",
        "_closed",
        "_current",
        "_older",
        "_pool",
        "acked",
        "base",
        "buf",
        "deferrable",
        "dirty",
        "later",
        "limit",
        "mem",
        "overrun",
        "pos",
        "sent",
        "touched",
    )

    def __init__(
        self, pool: SlabPool, touched: list[ReplayBuffer], later: list[ReplayBuffer], bound: int
    ) -> None:
        self.touched, self.later = touched, later
        self._pool = pool
        self._bound = max(bound, 2 * SLAB_SIZE)
        self._older: deque[Slab] = deque()
        self.base = self.sent = self.acked = 0
        self.dirty = self.deferrable = self.overrun = self._closed = False
        self._use(pool.take())

    def _use(self, slab: Slab) -> None:
        slab.start = self.base
        self._current = slab
        self.buf, self.mem = slab.buf, slab.mem
        self.pos = 0
        self.limit = FAST_LIMIT

    @property
    def end(self) -> int:
        """Offset behind the last byte written."""
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
        """Make the current slab able to take a frame with `wanted` payload bytes at ``pos``; False: not now
        (back-pressure).
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

    def put(self, kind: int, stream_id: int, payload: bytes = b"", deferrable: bool = False) -> None:
        """Write a frame that is not refused room; deferrable: that may wait for others, to be sent with them. If the
        peer has not read for so long that memory would be unbounded, set `overrun` instead.
        """
        pos, length = self.pos, len(payload)
        # The bound is looked at where another slab would be taken: one that is there may be filled.
        if pos > self.limit:
            if not self._takes_control(HEADER_SIZE + length):
                return
            pos = self.pos
        _pack_into(self.buf, pos, kind << 56 | stream_id << KEY_SHIFT | length)
        body = pos + HEADER_SIZE
        self.pos = stop = body + length
        if length:
            self.buf[body:stop] = payload
        if not self.dirty:
            if not deferrable:
                self.dirty = True
                self.touched.append(self)
            elif not self.deferrable:
                self.deferrable = True
                self.later.append(self)

    def _takes_control(self, size: int) -> bool:
        """Make the current slab able to take a control frame of `size` bytes; False: there are too many."""
        if self.base + self.pos - self.acked + size > 2 * self._bound:
            if not self._closed:
                self.overrun = True
                self.touch()
            return False
        if self.pos + size > SLAB_SIZE:
            self._roll()
        return True

    def touch(self) -> None:
        """Say that there are new bytes to send."""
        if not self.dirty:
            self.dirty = True
            self.touched.append(self)

    def _roll(self) -> None:
        """Go on in another slab, or at the start of this one if nothing in it is needed any more."""
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

    def unsent_view(self) -> memoryview:
        """The next contiguous unsent bytes; empty when all are sent. The caller adds what it sent to ``sent``."""
        if self.sent >= self.base:
            return self.mem[self.sent - self.base : self.pos]
        for slab in self._older:
            if self.sent < slab.end:
                return slab.mem[self.sent - slab.start : slab.end - slab.start]
        raise AssertionError("unsent bytes lie in no slab")

    def acknowledge_untrusted(self, offset: int) -> None:
        """The peer has everything below `offset`. Raises only ProtocolError (for bytes that were never sent)."""
        if offset > self.sent:
            raise ProtocolError(f"ACK of offset {offset}, but only {self.sent} bytes were sent")
        self.acked = max(self.acked, offset)
        while self._older and self._older[0].end <= self.acked:
            self._pool.give(self._older.popleft())
        if self.limit < 0:  # somebody waits for room, perhaps for this room
            self.touch()

    def rewind_untrusted(self, offset: int) -> None:
        """A new link's peer has everything below `offset`, and nothing else: what follows counts as not sent.

        Raises only ProtocolError, and changes nothing then: for bytes that are not kept, and for the middle of a frame.
        """
        if not self.acked <= offset <= self.sent:
            raise ProtocolError(f"resuming at offset {offset}, but {self.acked} to {self.sent} are kept")
        if not self._begins_frame(offset):
            raise ProtocolError(f"resuming at offset {offset}, in the middle of a frame")
        self.sent = offset
        self.acknowledge_untrusted(offset)
        self.touch()

    def _begins_frame(self, offset: int) -> bool:
        """Whether `offset`, which is kept, is where a frame begins or the last one ends. Slabs hold whole frames."""
        slab, start = self._current, self.base
        for older in self._older:
            if older.start <= offset < older.end:
                slab, start = older, older.start
                break
        pos, wanted = 0, offset - start
        while pos < wanted:
            pos += HEADER_SIZE + (HEADER.unpack_from(slab.buf, pos)[0] & LENGTH_MASK)
        return pos == wanted

    def close(self) -> None:
        """Give all slabs back. Idempotent; the buffer takes nothing afterwards."""
        if not self._closed:
            self._closed = True
            self.limit = -1
            self._bound = 0  # refuses everything: the slabs may be another buffer's by now
            self._older.append(self._current)
            while self._older:
                self._pool.give(self._older.popleft())
