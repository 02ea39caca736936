"""The common case of moving bytes, and nothing else.

Everything that is not "a local socket in plain flow has bytes, with credit and room" or "a DATA frame for a stream that
is flowing" is handed on, to the lane or the session. Rules of this file: no object, event or exception per message;
bytes are received into their final place; names used in loops are locals.
"""

from __future__ import annotations

from select import EPOLLIN

from proxy.core.syscalls import Epoll, recv, send, word_at
from proxy.mux.frames import HEADER_SIZE, ID_MASK, KEY_SHIFT, LENGTH_MASK, MAX_DATA
from proxy.mux.session import Session
from proxy.mux.sizes import CHUNK, NEAR
from proxy.pump.lane import Lane
from proxy.pump.pace import SLICE


def collect(found: Epoll, count: int, lanes: list[Lane | None], rest: list[int]) -> None:
    """Local sockets to out-buffers: one receive and one DATA frame for each ready lane.

    Args:
        found: the events of the last wait, `count` of them.
        lanes: as `Pump.lanes`.
        rest: gets the places, below `count`, of the events that are not the common case.

    Raises nothing of its own; a bug in a lane's method comes through.
    """
    for index in range(count):
        fd = found.at(index)
        lane = lanes[fd]
        if lane is None or found.mask != EPOLLIN:
            rest.append(index)
            continue
        out = lane.out
        if out.pos > out.limit:
            rest.append(index)
            continue
        length = recv(fd, out.buf, out.pos + HEADER_SIZE, CHUNK)
        if length < 0:
            lane.on_recv_error(-length)
        elif length == 0:
            lane.on_eof()
        else:
            lane.session.sent(lane, length)
            if length == CHUNK or lane.credit < CHUNK:
                lane.leave_plain_flow(length)


def deliver(session: Session, buf: bytearray, pos: int, end: int, most: int) -> tuple[int, int]:
    """Frames of a link: plain DATA to local sockets, each other frame to the session.

    Args:
        session: whose frames they are.
        buf: frames lie in its ``[pos, end)``, the last one perhaps in part.
        most: stop after this many frames that are not plain DATA; each may cost as much as many of DATA.

    Returns: the position of the first frame that was not handled (the last one handled began within SLICE), and how
        many of `most` are left. Raises ProtocolError as ``session.handle`` does.
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
        most -= 1
        if not most or session.reading_stopped:
            break
    return pos, most
