from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from proxy.pool.bulk import BulkStreams
from proxy.pool.history import SHARED_MEMORY, GapHistogram
from proxy.pool.learning import UsageLearner
from proxy.pool.record import Recorder
from proxy.pool.usage import BULK_BYTES, PoolUsage
from proxy.pump.lane import Lane
from tests.pool.hosts import KEEPING


def lane(moved: int, age: float = 1.0) -> Lane:
    """As much of one as is asked for here."""
    observer = SimpleNamespace(direction="outbound", service="web")
    return cast(Lane, SimpleNamespace(bytes_moved=moved, age=age, observer=observer))


def learning(usage: PoolUsage, recorder: Recorder | None = None) -> tuple[UsageLearner, set[str], list[None]]:
    """One, the streams that wait, and how often it was said that one of them may go on."""
    waiting, ended = set[str](), list[None]()
    return UsageLearner("b", usage, BulkStreams(usage), recorder, waiting, lambda: ended.append(None)), waiting, ended


async def test_sessions_in_use_at_the_same_time_make_one_use() -> None:
    usage = PoolUsage(GapHistogram(SHARED_MEMORY), KEEPING)
    one, _, _ = learning(usage)
    for _ in range(2):
        one.began()
        one.began()
        assert usage.busy == 2
        one.ended()
        one.ended()
        assert usage.busy == 0
    assert usage.history.gaps == 1


async def test_of_most_streams_nothing_is_told_unless_another_one_waits() -> None:
    one, waiting, ended = learning(PoolUsage(GapHistogram(SHARED_MEMORY), KEEPING))
    assert one.notable == BULK_BYTES
    waiting.add("another one")
    one.look()
    assert one.notable == 0
    one.stream_ended(lane(10))
    assert ended == [None]
    waiting.clear()
    one.stream_ended(lane(10))
    assert ended == [None]
    assert one.notable == BULK_BYTES


async def test_a_service_that_is_heavy_makes_no_other_stream_notable() -> None:
    """It would be a price that every connection to the peer pays; `PoolUsage.count` finds the light ones."""
    usage = PoolUsage(GapHistogram(SHARED_MEMORY), KEEPING)
    one, _, _ = learning(usage)
    one.stream_ended(lane(BULK_BYTES))
    assert usage.any_bulk
    assert one.notable == BULK_BYTES


async def test_once_the_record_is_full_streams_are_notable_no_more(tmp_path: Any) -> None:
    recorder = Recorder(str(tmp_path / "uses"), 1)
    recorder.open()
    one, _, _ = learning(PoolUsage(GapHistogram(SHARED_MEMORY), KEEPING), recorder)
    assert one.notable == 0
    one.stream_ended(lane(10))
    recorder.close()
    one.look()
    assert recorder.full
    assert one.notable == BULK_BYTES


async def test_a_heavy_stream_is_noted_and_each_one_recorded(tmp_path: Any) -> None:
    usage, recorder = PoolUsage(GapHistogram(SHARED_MEMORY), KEEPING), Recorder(str(tmp_path / "uses"), 1 << 20)
    recorder.open()
    one, _, _ = learning(usage, recorder)
    assert one.notable == 0
    for moved in (10, BULK_BYTES):
        one.stream_ended(lane(moved))
    recorder.close()
    assert usage.any_bulk
    assert [line.count('"peer":"b"') for line in (tmp_path / "uses").read_text().splitlines()] == [1, 1]
