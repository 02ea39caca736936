"""The common case of moving bytes, and nothing else.

Everything that is not "a local socket in plain flow has bytes, with credit and room" or "a DATA frame for a stream in
plain flow" is handed on, to the lane or the session. Rules of this file: no object, event or exception per message;
bytes are received into their final place; names used in loops are locals.
"""

from __future__ import annotations

from select import EPOLLIN
from typing import Protocol

from proxy.mux.frames import HEADER, HEADER_SIZE, ID_MASK, KEY_SHIFT, KIND_SHIFT, LENGTH_MASK, MAX_DATA
from proxy.mux.replay import CHUNK, ReplayBuffer
from proxy.mux.session import UNKNOWN, Handler
from proxy.pump.lane import Lane
from proxy.pump.loop import Event, PlainLane

SLICE = 16 * 1024
"""Bytes. `deliver` begins no frame behind so many, so that its caller can look at the clock: to send one byte takes as
long as to send a thousand."""


class FrameSource(Protocol):
    """What the turn needs of a session.

    Attributes:
        flow: by stream id, the lanes for which a DATA frame only has to be written to the local socket.
        grant_below: a frame that would leave its stream with less `allow` than this is not plain, because new credit
            is due. So a frame that exceeds its credit is never plain.
        reading_stopped: no more frames are to be handled, as the link ends.
        handlers: by kind of frame, what handles it, and the most bytes that its payload may have.
    """

    flow: dict[int, Lane]
    grant_below: int
    reading_stopped: bool
    handlers: dict[int, tuple[Handler, int]]

    def handle(self, word: int, mem: memoryview, body: int, stop: int) -> None:
        """As `mux.session.Session.handle`."""


def collect(
    events: list[Event], lanes: dict[int, PlainLane], touched: list[ReplayBuffer], rest: list[Event]
) -> None:
    """Local sockets to out-buffers: one receive and one DATA frame for each ready lane.

    Args:
        events: (descriptor, mask) as epoll returned them.
        lanes: by descriptor, the lanes in plain flow, each with at least CHUNK bytes of credit.
        touched: gets the out-buffers that now have bytes to send.
        rest: gets the events that are not the common case.

    Raises nothing of its own; a bug in a lane's method comes through.
    """
    pack_into = HEADER.pack_into
    get = lanes.get
    for event in events:
        fd, mask = event
        lane = get(fd)
        if lane is None or mask != EPOLLIN:
            rest.append(event)
            continue
        out = lane.out
        pos = out.pos
        if pos > out.limit:
            rest.append(event)
            continue
        # inlined: Lane._receive
        body = pos + HEADER_SIZE
        try:
            length = lane.recv_into(out.mem[body : body + CHUNK])
        except OSError as error:
            lane.on_recv_error(error)
            continue
        if not length:
            lane.on_eof()
            continue
        # inlined: Session.sent
        pack_into(out.buf, pos, lane.word + length)
        out.pos = body + length
        lane.credit = credit = lane.credit - length
        # inlined: ReplayBuffer.touch
        if not out.dirty:
            out.dirty = True
            touched.append(out)
        if length == CHUNK or credit < CHUNK:
            lane.leave_plain_flow(length)


def deliver(session: FrameSource, buf: bytearray, mem: memoryview, pos: int, end: int, most: int) -> tuple[int, int]:
    """Frames of a link: plain DATA to local sockets, each other frame to the session.

    Args:
        session: whose frames they are.
        buf, mem: the same memory, twice; frames lie in ``[pos, end)``, the last one perhaps in part.
        most: stop after this many frames that are not plain DATA; each may cost as much as many of DATA.

    Returns: the position of the first frame that was not handled (the last one handled began within SLICE), and how
        many of `most` are left. Raises ProtocolError as ``session.handle`` does.
    """
    unpack_from, get = HEADER.unpack_from, session.flow.get
    grant_below, handlers = session.grant_below, session.handlers
    last = min(end - HEADER_SIZE, pos + SLICE)
    while pos <= last:
        (word,) = unpack_from(buf, pos)
        length = word & LENGTH_MASK
        body = pos + HEADER_SIZE
        stop = body + length
        if stop > end:
            break
        pos = stop
        lane = get(word >> KEY_SHIFT)
        if lane is not None and 0 < length <= MAX_DATA and (allow := lane.allow - length) >= grant_below:
            # inlined: Session._on_data
            lane.allow = allow
            # inlined: Lane.on_data
            try:
                taken = lane.send(mem[body:stop])
            except OSError as error:
                lane.guard(lane.on_send_error, error, mem[body:stop])
                continue
            if taken != length:
                lane.guard(lane.on_full, mem[body + taken : stop])
            continue
        # inlined: Session.handle
        handler, largest = handlers.get(word >> KIND_SHIFT, UNKNOWN)
        if length > largest:
            session.handle(word, mem, body, stop)  # raises
        handler(word >> KEY_SHIFT & ID_MASK, mem, body, stop)
        most -= 1
        if not most or session.reading_stopped:
            break
    return pos, most
