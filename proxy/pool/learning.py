"""What a pool learns from each stream, either side's, as it begins and ends (``pump.session.Usage``)."""

from __future__ import annotations

from collections.abc import Callable, Collection

import trio

from proxy.pool.bulk import Bulk
from proxy.pool.record import Recorder
from proxy.pool.usage import BULK_BYTES, Usage, is_bulk
from proxy.pump.lane import Lane


class Learning:
    """Called for each stream, inside turns: it looks at a clock only where a stream is the first, the last or heavy.

    Args:
        peer: the peer's name, for the recorder.
        waiting: streams that wait for a link; ended: called when one has ended while there are any.
    """

    def __init__(
        self,
        peer: str,
        usage: Usage,
        bulk: Bulk,
        recorder: Recorder | None,
        waiting: Collection[object],
        ended: Callable[[], None],
    ) -> None:
        self._peer, self._usage, self._bulk, self._recorder = peer, usage, bulk, recorder
        self._waiting, self._ended = waiting, ended

    def stream_began(self) -> None:
        """See `pump.session.Usage`."""
        usage = self._usage
        if usage.streams:
            usage.streams += 1
        else:
            usage.began(trio.current_time())

    def stream_ended(self, lane: Lane) -> None:
        """See `pump.session.Usage`."""
        usage = self._usage
        if usage.streams > 1:
            usage.streams -= 1
        else:
            usage.ended(trio.current_time())
        moved = lane.received_grants - lane.credit + lane.granted - lane.allow  # `Stream.bytes_moved`, half as dear
        if usage.any_bulk or (moved >= BULK_BYTES and is_bulk(moved, lane.age)):
            self._bulk.note(lane, trio.current_time())
        if self._recorder is not None:
            self._recorder.note(self._peer, lane.age, moved)
        if self._waiting:
            self._ended()
