"""Which link bulk gets, and when open streams are looked at. (That a pool does so: test_idle.py.)"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace as Made

from proxy.pool.bulk import COUNT, BulkStreams
from proxy.pool.history import SHARED_MEMORY, GapHistogram
from proxy.pool.usage import BULK_BYTES, BULK_MEMORY, PoolUsage
from tests.pool.hosts import KEEPING


@dataclass
class Link:
    """As much of one as the rules look at."""

    streams: int
    usable: bool = True
    session: Made = field(default_factory=lambda: Made(bulk=False, out=Made(end=0), received=0, streams={}))


def lane(moved: int, age: float = 1.0, direction: str = "outbound") -> Made:
    return Made(observer=Made(service="backup", direction=direction), bytes_moved=moved, age=age)


def bulk() -> tuple[BulkStreams, PoolUsage]:
    usage = PoolUsage(GapHistogram(SHARED_MEMORY), KEEPING)
    return BulkStreams(usage), usage


def test_the_link_with_the_fewest_streams_is_set_apart() -> None:
    rule, _ = bulk()
    links = [Link(9), Link(2), Link(0, usable=False)]
    assert rule.set_apart(links[0], links) is links[1]  # type: ignore[arg-type]
    assert [link.session.bulk for link in links] == [False, True, False]


def test_the_only_link_is_for_everything() -> None:
    rule, _ = bulk()
    only = Link(9)
    assert rule.set_apart(only, [only]) is only  # type: ignore[arg-type]
    assert not only.session.bulk


def test_an_empty_link_is_not_for_bulk_any_more() -> None:
    rule, usage = bulk()
    usage.moved("backup", BULK_BYTES, 1.0, 0.0)
    links = [Link(1), Link(0)]
    links[0].session.streams = {1: lane(100)}
    for link in links:
        link.session.bulk = True
    rule.look([link.session for link in links], 0.0)
    assert [link.session.bulk for link in links] == [True, False]


def test_open_streams_are_looked_at_when_a_link_has_moved_enough() -> None:
    rule, usage = bulk()
    link = Link(2)
    link.session.streams = {1: lane(BULK_BYTES), 3: lane(BULK_BYTES, direction="inbound")}
    link.session.out.end = BULK_BYTES - 1
    rule.look([link.session], 0.0)
    assert not usage.any_bulk
    link.session.received = 1
    rule.look([link.session], 0.0)
    assert usage.bulk("backup", 0.0)


def test_no_link_is_for_bulk_once_no_service_is_heavy_whatever_is_open_on_it() -> None:
    rule, usage = bulk()
    usage.moved("backup", BULK_BYTES, 1.0, 0.0)
    link = Link(1)
    link.session.streams = {1: lane(100)}
    link.session.bulk = True
    rule.look([link.session], BULK_MEMORY)
    assert link.session.bulk
    rule.look([link.session], BULK_MEMORY + 1)
    assert not link.session.bulk


def test_an_open_stream_that_is_heavy_is_no_light_one_of_those_that_ended() -> None:
    rule, usage = bulk()
    link = Link(1)
    link.session.streams = {1: lane(BULK_BYTES)}
    for moved in range(1, 5):
        link.session.received = moved * BULK_BYTES
        rule.look([link.session], moved * COUNT)
    for number in range(3, 23, 2):
        link.session.streams[number] = lane(100)
        usage.opened("backup")
    rule.look([link.session], 5 * COUNT)
    assert usage.bulk("backup", 0.0), "nothing has ended"
    link.session.streams = {1: lane(BULK_BYTES)}
    rule.look([link.session], 5.5 * COUNT)
    assert usage.bulk("backup", 0.0), "not counted that often"
    rule.look([link.session], 6 * COUNT)
    assert not usage.bulk("backup", 0.0), "ten have, which were light"


def test_streams_that_others_opened_say_nothing_about_a_service() -> None:
    rule, usage = bulk()
    rule.note(lane(BULK_BYTES, direction="inbound"), 0.0)  # type: ignore[arg-type]
    assert not usage.any_bulk
