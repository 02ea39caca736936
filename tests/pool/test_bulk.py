"""Which link bulk gets, and when open streams are looked at. (That a pool does so: test_idle.py.)"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace as Made

from proxy.pool.bulk import Bulk
from proxy.pool.history import SHARED_MEMORY, Gaps
from proxy.pool.usage import BULK_BYTES, Usage
from tests.pool.hosts import KEEPING


@dataclass
class Link:
    """As much of one as the rules look at."""

    streams: int
    usable: bool = True
    session: Made = field(default_factory=lambda: Made(bulk=False, out=Made(end=0), received=0, streams={}))


def lane(moved: int, age: float = 1.0, direction: str = "outbound") -> Made:
    return Made(owner=Made(service="backup", direction=direction), bytes_moved=moved, age=age)


def bulk() -> tuple[Bulk, Usage]:
    usage = Usage(Gaps(SHARED_MEMORY), KEEPING)
    return Bulk(usage), usage


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
    rule, _ = bulk()
    links = [Link(1), Link(0)]
    for link in links:
        link.session.bulk = True
    rule.look(links, 0.0)  # type: ignore[arg-type]
    assert [link.session.bulk for link in links] == [True, False]


def test_open_streams_are_looked_at_when_a_link_has_moved_enough() -> None:
    rule, usage = bulk()
    link = Link(2)
    link.session.streams = {1: lane(BULK_BYTES), 3: lane(BULK_BYTES, direction="inbound")}
    link.session.out.end = BULK_BYTES - 1
    rule.look([link], 0.0)  # type: ignore[list-item]
    assert not usage.any_bulk
    link.session.received = 1
    rule.look([link], 0.0)  # type: ignore[list-item]
    assert usage.bulk("backup", 0.0)


def test_streams_that_others_opened_say_nothing_about_a_service() -> None:
    rule, usage = bulk()
    rule.note(lane(BULK_BYTES, direction="inbound"), 0.0)  # type: ignore[arg-type]
    assert not usage.any_bulk
