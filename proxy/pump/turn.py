"""The common case of moving bytes, and nothing else.

Everything that is not "a local socket in plain flow has bytes, with credit and room" or "a DATA frame for a stream that
is flowing" is handed on, to the lane or the session. Rules of this file: no object, event or exception per message;
bytes are received into their final place; names used in loops are locals.
"""

from __future__ import annotations

from select import EPOLLIN

from proxy.core.syscalls import Epoll, recv, send, word_at
from proxy.mux.frames import HEADER_SIZE, ID_MASK, KEY_SHIFT, LENGTH_MASK, MAX_DATA
from proxy.mux.sizes import CHUNK, NEAR
from proxy.pump.carrier import CarriedSession
from proxy.pump.lane import Lane
from proxy.pump.loop import Reader
from proxy.pump.pace import SLICE


class LaneReader(Reader):
    """From local sockets to out-buffers."""

    def read(self, found: Epoll, count: int, lanes: list[Lane | None]) -> int:
        """See `Reader`. One receive and one DATA frame for each ready lane.

        Raises nothing of its own; a bug in a lane's method comes through.
        """
        left = 0
        for index in range(count):
            fd = found.at(index)
            lane = lanes[fd]
            if lane is None or found.mask != EPOLLIN or lane.out.pos > lane.out.limit:
                found.put_off(index, left)
                left += 1
                continue
            out = lane.out
            length = recv(fd, out.buf, out.pos + HEADER_SIZE, CHUNK)
            if length < 0:
                lane.on_recv_error(-length)
            elif length == 0:
                lane.on_eof()
            else:
                lane.session.sent(lane, length)
                if length == CHUNK or lane.credit < CHUNK:
                    lane.leave_plain_flow(length)
        return left


def deliver(session: CarriedSession, buf: bytearray, pos: int, end: int) -> int:
    """Frames of a link: plain DATA to local sockets, each other frame to the session.

    Args:
        session: whose frames they are. Counts its `slow_left` down, and stops at 0: a frame that is not plain DATA may
            cost as much as many that are.
        buf: frames lie in its ``[pos, end)``, the last one perhaps in part.

    Returns: the position of the first frame that was not handled; the last one handled began within SLICE. Raises
        ProtocolError as ``session.handle`` does.
    """
    streams, near, grant_below = session.streams, session.near, session.grant_below
    last = min(end - HEADER_SIZE, pos + SLICE)
    while pos <= last:
        word = word_at(buf, pos)
        length = word & LENGTH_MASK
        body = pos + HEADER_SIZE
        stop = body + length
        if stop > end:
            break
        pos = stop
        key = word >> KEY_SHIFT
        lane = near[key >> 1 & NEAR]
        if lane is None or lane.id != key:
            lane = streams.get(key) if key <= ID_MASK else None
        if lane is not None and lane.flowing and 0 < length <= MAX_DATA and lane.allow - length >= grant_below:
            lane.allow -= length
            taken = send(lane.fd, buf, body, length)
            if taken != length:
                lane.guard(lane.on_untaken, taken, buf[body:stop])
            continue
        session.handle(word, buf, body, stop)
        session.slow_left -= 1
        if not session.slow_left or session.reading_stopped:
            break
    return pos
