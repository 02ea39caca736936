from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from proxy.pool.bulk import Bulk
from proxy.pool.history import SHARED_MEMORY, Gaps
from proxy.pool.learning import Learning
from proxy.pool.record import Recorder
from proxy.pool.usage import BULK_BYTES, Usage
from proxy.pump.lane import Lane
from tests.pool.hosts import KEEPING


def lane(moved: int, age: float = 1.0) -> Lane:
    """As much of one as is asked for here."""
    owner = SimpleNamespace(direction="outbound", service="web")
    counts = {"received_grants": moved, "credit": 0, "granted": 0, "allow": 0, "bytes_moved": moved}
    return cast(Lane, SimpleNamespace(**counts, age=age, owner=owner))


async def test_the_first_and_the_last_of_several_streams_make_one_use() -> None:
    usage = Usage(Gaps(SHARED_MEMORY), KEEPING)
    ended: list[None] = []
    waiting: set[str] = set()
    learning = Learning("b", usage, Bulk(usage), None, waiting, lambda: ended.append(None))
    for told in (0, 2):
        learning.stream_began()
        learning.stream_began()
        assert usage.streams == 2
        learning.stream_ended(lane(10))
        learning.stream_ended(lane(10))
        assert usage.streams == 0
        assert len(ended) == told, "only while another one waits"
        waiting.add("another one")
    assert usage.history.gaps == 1
    assert not usage.any_bulk


async def test_a_heavy_stream_is_noted_and_each_one_recorded(tmp_path: Any) -> None:
    usage, recorder = Usage(Gaps(SHARED_MEMORY), KEEPING), Recorder(str(tmp_path / "uses"), 1 << 20)
    recorder.open()
    learning = Learning("b", usage, Bulk(usage), recorder, (), lambda: None)
    for moved in (10, BULK_BYTES):
        learning.stream_began()
        learning.stream_ended(lane(moved))
    recorder.close()
    assert usage.any_bulk
    assert [line.count('"peer":"b"') for line in (tmp_path / "uses").read_text().splitlines()] == [1, 1]
