from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.pool.policy import (
    CROWDED,
    LOOK,
    MOST_LEAVING,
    QUEUEING,
    SPARE,
    Dial,
    LinkState,
    PoolState,
    Retire,
    Wait,
    admits,
    choose,
    next_step,
    wants_more,
)
from proxy.pool.usage import LinkDemand


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


# The step

NOW, EVER = 1000.0, float("inf")
KEEP = LinkDemand(True, False, EVER)
"""Its use says: a link is to be kept."""
CLOSE = LinkDemand(False, False, EVER)
AHEAD = LinkDemand(True, True, NOW + 7)
A = LinkState("a")
B = LinkState("b")
BUSY, FULL, SLOW = A._replace(streams=3), A._replace(streams=CROWDED), A._replace(streams=3, queueing=1.0)
LEAVING = A._replace(usable=False, leaving=True, streams=1)
START = PoolState[str, str](NOW, 2, CLOSE)
"""A pool that knows nothing, may have two links, and looks at NOW."""
UP = START._replace(links=(BUSY,), wanted=KEEP)
NOTHING, LATER = Wait(EVER), Wait(NOW + LOOK)

Step = Dial[str] | Retire[str] | Wait

STEPS: list[tuple[str, PoolState[str, str], Step]] = [
    # Nothing is up.
    ("nobody asks, and time changes nothing", START, NOTHING),
    ("an upstream needs the peer", START._replace(needed=True), Dial(None)),
    ("an upstream needs it, but nothing used the last link", START._replace(needed=True, idle=True), NOTHING),
    ("nothing used the last link, and a stream waits", START._replace(idle=True, waiting=1), Dial(None)),
    ("a stream waits", START._replace(waiting=1), Dial(None)),
    ("it is invited", START._replace(invited=True), Dial(None)),
    ("no stream waits for a use that is expected", START._replace(needed=True, wanted=AHEAD), Dial(None, True)),
    (
        "a use is expected of a peer that is idle",
        START._replace(needed=True, idle=True, wanted=AHEAD),
        Dial(None, True),
    ),
    ("a use is expected, of a peer that no upstream names", START._replace(wanted=AHEAD), Wait(NOW + 7)),
    ("a use was expected, and has come", START._replace(wanted=AHEAD, waiting=1), Dial(None)),
    (
        "a link is wanted later",
        START._replace(idle=True, needed=True, wanted=CLOSE._replace(until=NOW + 60)),
        Wait(NOW + 60),
    ),
    # A dial has failed.
    ("it is too early for another dial", START._replace(waiting=1, retry_at=NOW + 1), Wait(NOW + 1)),
    ("the time for another dial has come", START._replace(waiting=1, retry_at=NOW), Dial(None)),
    ("nobody asks for another dial", START._replace(retry_at=NOW + 1), NOTHING),
    ("a look comes before the next dial", UP._replace(links=(FULL,), retry_at=NOW + 2 * LOOK), LATER),
    # A link is up.
    ("one is enough", UP, LATER),
    ("one is enough, needed or not", UP._replace(needed=True), LATER),
    ("one is enough, though it is congested for a moment", UP._replace(links=(BUSY._replace(congested=True),)), LATER),
    ("its use changes before the next look", UP._replace(wanted=KEEP._replace(until=NOW + 1)), Wait(NOW + 1)),
    ("it is crowded", UP._replace(links=(FULL,)), Dial(None)),
    ("bytes wait for it", UP._replace(links=(SLOW,)), Dial(None)),
    ("crowded, with one that is not", UP._replace(links=(FULL, B), limit=3), LATER),
    ("crowded, at the limit", UP._replace(links=(FULL, FULL)), LATER),
    ("bulk asks and the link is not for it", UP._replace(bulk=True), Dial(None, False, True)),
    ("bulk asks and there is a link for it", UP._replace(bulk=True, links=(BUSY, B._replace(bulk=True))), LATER),
    ("bulk asks, at the limit", UP._replace(bulk=True, limit=1), LATER),
    ("bulk asks, and small messages need a link as well", UP._replace(bulk=True, links=(FULL,)), Dial(None)),
    ("the only link is for bulk", UP._replace(links=(BUSY._replace(bulk=True),)), Dial(None)),
    # Links that are leaving.
    ("the peer drains and nobody asks", UP._replace(links=(LEAVING,)), LATER),
    ("the peer drains and an upstream needs it", UP._replace(links=(LEAVING,), needed=True), Dial(None)),
    (
        "the peer drains and a stream waits, whatever the limit",
        UP._replace(links=(LEAVING,), waiting=1, limit=1),
        Dial(None),
    ),
    ("as many are leaving as may", UP._replace(links=(LEAVING,) * MOST_LEAVING, waiting=1), LATER),
    # Sessions that have lost their link.
    ("one that this side dials for", START._replace(lost="s", suspended=1, suspended_ours=1), Dial("s")),
    ("it comes before streams that wait", START._replace(lost="s", suspended_ours=1, waiting=1), Dial("s")),
    ("it counts neither limit nor drain", UP._replace(lost="s", limit=1, draining=True), Dial("s")),
    ("it waits as any dial that failed does", START._replace(lost="s", retry_at=NOW + 1), Wait(NOW + 1)),
    ("one that the peer dials for is waited for", START._replace(needed=True, suspended=1), NOTHING),
    ("... until somebody needs a link", START._replace(suspended=1, waiting=1), Dial(None)),
    ("the peer must be told what is gone, over a link of its own", UP._replace(untold=True), Dial(None)),
    ("... not at the limit", UP._replace(untold=True, limit=1), LATER),
    ("... and not a peer that may be gone as well", START._replace(untold=True), NOTHING),
    # This host drains.
    ("it drains", START._replace(draining=True, needed=True), NOTHING),
    ("it drains, and a stream waits that was accepted before", START._replace(draining=True, waiting=1), Dial(None)),
    ("it drains, and keeps what is not used", UP._replace(links=(A,), wanted=CLOSE, draining=True), LATER),
    # Links that nothing uses.
    ("not wanted any more", UP._replace(links=(A,), wanted=CLOSE), Retire("a")),
    ("not wanted, but in use", UP._replace(wanted=CLOSE), LATER),
    ("not wanted, but the peer's to close", UP._replace(links=(A._replace(dialled=False),), wanted=CLOSE), LATER),
    ("the last of two that are not wanted goes first", UP._replace(links=(A, B), wanted=CLOSE), Retire("b")),
    ("one at a time", UP._replace(links=(A, LEAVING), wanted=CLOSE), LATER),
    ("spare beside another one for long", UP._replace(links=(BUSY, B._replace(unused_for=SPARE))), Retire("b")),
    ("spare, but not for long", UP._replace(links=(BUSY, B._replace(unused_for=SPARE - 1))), LATER),
    ("long without a stream, but the only one", UP._replace(links=(A._replace(unused_for=SPARE),)), LATER),
    ("closing comes before dialling", UP._replace(links=(A,), wanted=CLOSE, lost="s"), Retire("a")),
]


@pytest.mark.parametrize(
    ("state", "step"), [row[1:] for row in STEPS], ids=[name.replace(" ", "-") for name, *_ in STEPS]
)
def test_the_next_step(state: PoolState[str, str], step: Step) -> None:
    found = next_step(state)
    assert (found._replace(why="") if isinstance(found, Dial) else found) == step


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (START._replace(waiting=1, needed=True), "a call waited for it"),
        (START._replace(wanted=AHEAD, needed=True), "a call was expected"),
        (START._replace(invited=True), "a host that idles was preferred to a busy one"),
        (START._replace(needed=True), "an upstream needs the peer"),
        (UP._replace(links=(FULL,)), "the other one has many streams"),
        (UP._replace(links=(SLOW,)), "bytes waited for the other one"),
        (UP._replace(links=(BUSY._replace(bulk=True),)), "the other one is for heavy streams"),
        (UP._replace(untold=True), "the peer's streams wait for one"),
        (UP._replace(bulk=True), "heavy streams asked for one"),
        (START._replace(lost="s", waiting=1), ""),
    ],
)
def test_why_it_dials(state: PoolState[str, str], why: str) -> None:
    found = next_step(state)
    assert isinstance(found, Dial)
    assert found.why == why


states = st.builds(
    LinkState[str],
    st.sampled_from("abc"),
    dialled=st.booleans(),
    usable=st.booleans(),
    leaving=st.booleans(),
    congested=st.booleans(),
    queueing=st.floats(0, 1),
    bulk=st.booleans(),
    streams=st.integers(0, 2 * CROWDED),
    unused_for=st.floats(0, 2 * SPARE),
)
standings = st.builds(
    PoolState[str, str],
    st.just(NOW),
    st.integers(1, 4),
    st.sampled_from([KEEP, CLOSE, AHEAD]),
    st.lists(states, max_size=5).map(tuple),
    needed=st.booleans(),
    idle=st.booleans(),
    waiting=st.integers(0, 9),
    invited=st.booleans(),
    bulk=st.booleans(),
    lost=st.none() | st.just("s"),
    suspended=st.integers(0, 3),
    suspended_ours=st.integers(0, 3),
    draining=st.booleans(),
    retry_at=st.none() | st.floats(NOW - 10, NOW + 10),
)


@given(standings)
def test_whatever_the_state(state: PoolState[str, str]) -> None:
    match next_step(state):
        case Dial(session, ahead, bulk):
            assert state.retry_at is None or state.retry_at <= NOW
            assert session == state.lost
            assert session or state.taking + state.suspended_ours < state.limit, "never beyond the limit"
            assert not (ahead and state.waiting)
            assert not bulk or state.bulk
        case Retire(link):
            assert any(each.link == link and each.dialled and not each.streams for each in state.links)
        case Wait(until):
            assert until > NOW, "or the pool would ask for ever"


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
