"""What is known of a stream for which neither call nor delivery was made, as nobody heard of it when it began."""

from __future__ import annotations

from time import monotonic

from control.api.messages import StreamDirection
from proxy.mux.frames import UNKNOWN_UID, Open
from proxy.pump.lane import Lane
from proxy.pump.options import peer_process
from proxy.pump.streamlog import StreamFacts, stalled, stream_id


class KnownStream:
    """A stream that has just ended (``pump.streamlog.LoggedStream``). How long its parts took nobody has measured."""

    def __init__(self, lane: Lane, direction: StreamDirection, call: Open) -> None:
        self._lane, self._direction, self._call = lane, direction, call

    @property
    def stream_id(self) -> str:
        """As both hosts have it (LoggedStream)."""
        return stream_id(self._lane)

    def facts(self) -> StreamFacts:
        """What is known of it (LoggedStream)."""
        lane, call, sock = self._lane, self._call, self._lane.sock
        outbound = self._direction == "outbound"
        process = peer_process(sock) if outbound and sock is not None and sock.fileno() >= 0 else None
        return StreamFacts(
            service=call.service,
            direction=self._direction,
            caller=call.caller,
            uid=None if call.uid == UNKNOWN_UID else call.uid,
            pid=None if process is None else process[1] or None,
            peer=lane.session.peer,
            link=lane.session.name,
            tries=1,
            age=lane.age,
            wait=None,
            open=None,
            first_byte=None,
            stalled=stalled(lane.stalls, monotonic()),
            sent=lane.bytes_sent,
            received=lane.bytes_received,
        )
