from __future__ import annotations

from proxy.errors import CloseReason
from proxy.pump.streamobserver import NULL_OBSERVER
from tests.pump.rig import rig


async def test_a_lane_that_has_ended_belongs_to_nobody_and_ends_in_silence() -> None:
    async with rig() as joined:
        stream = await joined.stream()
        lane = stream.outbound.lane
        lane.abort(CloseReason.ABORTED)
        assert stream.outbound.reason is CloseReason.ABORTED
        assert lane.observer is NULL_OBSERVER
        lane.drop(CloseReason.LINK_LOST)
        assert stream.outbound.reason is CloseReason.ABORTED, "told once"
        joined.a.pump.settle()
