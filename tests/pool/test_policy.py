from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.pool.policy import CROWDED, QUEUEING, Standing, admits, choose, should_dial, wants_more


class Link(NamedTuple):
    usable: bool = True
    congested: bool = False
    streams: int = 0
    queueing: float = 0.0
    bulk: bool = False


links = st.builds(Link, st.booleans(), st.booleans(), st.integers(0, 2 * CROWDED), st.floats(0, 1), st.booleans())


@given(st.lists(links, max_size=6), st.booleans())
def test_a_usable_link_of_the_right_kind_that_is_not_congested_comes_first(all_links: list[Link], bulk: bool) -> None:
    usable = [link for link in all_links if link.usable]
    best = choose(all_links, bulk)
    if not usable:
        assert best is None
    else:
        assert best in usable
        loads = {link: (link.bulk is not bulk, link.congested) for link in usable}
        assert loads[best] == min(loads.values())


def test_streams_keep_together_until_a_link_is_full() -> None:
    first, second = Link(streams=CROWDED - 1), Link(streams=3)
    assert choose([first, second]) is first
    full = Link(streams=CROWDED)
    assert choose([full, second]) is second
    assert choose([Link(streams=CROWDED + 9), Link(streams=CROWDED + 2)]) == Link(streams=CROWDED + 2)


def test_bulk_and_the_others_keep_apart_if_they_can() -> None:
    small, big = Link(streams=100), Link(streams=1, bulk=True)
    assert choose([big, small]) is small
    assert choose([small, big], bulk=True) is big
    assert choose([big]) is big
    assert choose([small], bulk=True) is small


def test_a_congested_link_is_better_than_none() -> None:
    full = Link(congested=True)
    assert choose([full]) is full
    assert choose([full, Link(streams=400)]) == Link(streams=400)


def test_among_equals_the_first_stays_in_use() -> None:
    first, second = Link(), Link()
    assert choose([first, second]) is first


def test_when_another_link_is_worth_its_handshake() -> None:
    assert not wants_more(Link(streams=CROWDED - 1, congested=True, queueing=QUEUEING / 2))
    assert wants_more(Link(streams=CROWDED))
    assert wants_more(Link(queueing=QUEUEING))
    assert wants_more(Link(), bulk=True)
    assert wants_more(Link(bulk=True))
    assert not wants_more(Link(bulk=True), bulk=True)


def standing(
    links: int = 1, limit: int = 2, needed: bool = False, waiting: int = 0, best: Link | None = None
) -> Standing:
    return Standing(links, limit, needed, waiting, best)


@pytest.mark.parametrize(
    ("now", "dial"),
    [
        (standing(links=0), False),
        (standing(links=0, needed=True), True),
        (standing(links=0, waiting=1), True),
        (standing(best=Link()), False),
        (standing(best=Link(), needed=True), False),
        (standing(best=Link(streams=CROWDED)), True),
        (standing(best=Link(queueing=1.0)), True),
        (standing(best=Link())._replace(bulk=True), True),
        (standing(links=2, best=Link(queueing=1.0)), False),
        (standing(links=1, best=None), False),
        (standing(links=1, best=None, waiting=1), True),
        (standing(links=2, best=None, waiting=1), False),
    ],
    ids=[
        "nobody asks",
        "an upstream needs it",
        "a stream waits",
        "one is enough",
        "one is enough, needed or not",
        "crowded",
        "queueing",
        "bulk comes and the link is not for it",
        "at the limit",
        "the peer drains and nobody asks",
        "the peer drains and a stream waits",
        "at the limit, whoever waits",
    ],
)
def test_when_to_dial(now: Standing, dial: bool) -> None:
    assert should_dial(now) is dial


@given(st.integers(0, 5), st.integers(1, 4), st.booleans(), st.integers(0, 9), st.none() | links)
def test_never_beyond_the_limit(count: int, limit: int, needed: bool, waiting: int, best: Link | None) -> None:
    if should_dial(Standing(count, limit, needed, waiting, best)):
        assert count < limit


@given(st.integers(0, 3), st.integers(1, 4))
def test_without_a_dial_of_ours_the_limit_alone_decides(count: int, limit: int) -> None:
    assert admits(links=count, dialling=False, limit=limit, own="a", peer="b") is (count < limit)


@pytest.mark.failure(9)
@given(st.integers(0, 3), st.integers(1, 4))
def test_when_both_dial_at_once_both_come_to_the_same_answer(count: int, limit: int) -> None:
    """Each side judges the other's dial while its own is under way: together they add what still fits."""
    at_a = admits(links=count, dialling=True, limit=limit, own="host-a", peer="host-b")
    at_b = admits(links=count, dialling=True, limit=limit, own="host-b", peer="host-a")
    assert at_a + at_b == min(2, max(0, limit - count))
    if limit - count == 1:
        assert at_b, "the dial of the host whose name sorts first counts"
