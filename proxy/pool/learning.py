"""What a pool learns from its streams, either side's (``pump.carrier.UsageObserver``)."""

from __future__ import annotations

from collections.abc import Callable, Collection

import trio

from proxy.pool.bulk import BulkStreams
from proxy.pool.record import Recorder
from proxy.pool.usage import BULK_BYTES, PoolUsage, is_bulk
from proxy.pump.carrier import UsageObserver
from proxy.pump.lane import Lane


class UsageLearner(UsageObserver):
    """Passes on what the sessions of one pool tell of their streams. It is not told of the end of most streams
    (`notable`): that would cost as much as a message.

    Args:
        peer: the peer's name, for the recorder.
        waiting: streams that wait for a link; ended: called when a stream has ended while any wait.
    """

    def __init__(
        self,
        peer: str,
        usage: PoolUsage,
        bulk: BulkStreams,
        recorder: Recorder | None,
        waiting: Collection[object],
        ended: Callable[[], None],
    ) -> None:
        self._peer, self._usage, self._bulk, self._recorder = peer, usage, bulk, recorder
        self._waiting, self._stream_ended = waiting, ended
        super().__init__()
        self.look()

    def look(self) -> None:
        """Set `notable`: the end of every stream is told while streams wait for a link or a recorder records, else only
        that of streams that may have been heavy. Call it when a stream begins to wait, and now and then.
        """
        every = self._waiting or (self._recorder is not None and not self._recorder.full)
        self.notable = 0 if every else BULK_BYTES

    def began(self) -> None:
        """`pump.carrier.UsageObserver.began`."""
        self._usage.began(trio.current_time())

    def ended(self) -> None:
        """`pump.carrier.UsageObserver.ended`."""
        self._usage.ended(trio.current_time())

    def stream_ended(self, lane: Lane) -> None:
        """`pump.carrier.UsageObserver.stream_ended`."""
        moved = lane.bytes_moved
        if is_bulk(moved, lane.age):
            self._bulk.note(lane, trio.current_time())
        if self._recorder is not None:
            self._recorder.note(self._peer, lane.age, moved)
        if self._waiting:
            self._stream_ended()
        self.look()
