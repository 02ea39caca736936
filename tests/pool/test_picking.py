"""Which way a call takes to its link: the short one, or the one through `Picker._choose`."""

from __future__ import annotations

import pytest
import trio

from proxy.mux.frames import FrameKind
from proxy.pool import policy
from proxy.pool.bulk import BulkStreams
from proxy.pool.history import SHARED_MEMORY, GapHistogram
from proxy.pool.pacing import Pacer
from proxy.pool.picking import Picker
from proxy.pool.policy import CROWDED, QUEUEING
from proxy.pool.usage import BULK_BYTES, BULK_COUNT, BULK_MEMORY, PoolUsage
from proxy.pump.link import Link as RealLink
from proxy.pump.session import LaneSession
from tests.pool.hosts import KEEPING, Dialling, Recording, pool, running, until


class Link(RealLink):
    """As much of one as the choice looks at."""

    answered = (0, 0)
    queueing = 0.0
    usable = True

    def __init__(self, queueing: float = 0.0) -> None:
        self.queueing = queueing
        self.congested = False
        self.session = LaneSession.__new__(LaneSession)
        self.session.bulk = False
        self.session.open_quota = 9
        self.session.streams = {}

    def open(self, count: int) -> None:
        self.session.streams = dict.fromkeys(range(count))


class Counting(Picker):
    """Counts the calls that take the long way, and what they ask for."""

    def __init__(self, *links: Link) -> None:
        self.asked: list[bool] = []
        self.chosen = self.looks = 0
        usage = PoolUsage(GapHistogram(SHARED_MEMORY), KEEPING)
        super().__init__(usage, BulkStreams(usage), Pacer(()), self.asked.append, self._count)
        for link in links:
            self.add(link, False)

    def _count(self) -> None:
        self.looks += 1

    def _choose(self, service: str) -> RealLink | None:
        self.chosen += 1
        return super()._choose(service)

    def ways(self, service: str = "web", calls: int = 10) -> tuple[set[object], int]:
        """Where so many calls go, and how many of them take the long way."""
        before = self.chosen
        links: set[object] = {self.pick(service) for _ in range(calls)}
        return links, self.chosen - before


async def test_the_first_call_chooses_and_the_others_follow() -> None:
    one, two = Link(), Link()
    picker = Counting(one, two)
    assert picker.ways() == ({one}, 1)
    assert picker.ways() == ({one}, 0)
    picker.look()
    assert picker.ways() == ({one}, 1), "nothing is kept longer than from one look to the next"
    assert (picker._usage.avoided, picker._usage.warm) == (30, 30)


async def test_without_a_link_there_is_none() -> None:
    picker = Counting()
    assert picker.ways() == ({None}, 10)
    assert (picker._usage.avoided, picker.asked) == (0, [])


async def test_congestion_lasts_as_long_as_it_lasts() -> None:
    only = Link()
    picker = Counting(only)
    assert picker.ways() == ({only}, 1)
    only.congested = True
    assert picker.ways() == ({only}, 10)
    only.congested = False
    assert picker.ways() == ({only}, 0)


async def test_the_first_link_is_the_first_again_once_it_is_not_congested() -> None:
    one, two = Link(), Link()
    picker = Counting(one, two)
    one.congested = True
    assert picker.ways() == ({two}, 10)
    one.congested = False
    assert picker.ways() == ({one}, 1)


async def test_beside_a_crowded_link_the_other_one_is_at_hand() -> None:
    one, two = Link(), Link()
    picker = Counting(one, two)
    assert picker.ways() == ({one}, 1)
    one.open(CROWDED)
    assert picker.ways() == ({two}, 1)


@pytest.mark.parametrize("queueing", [0.0, QUEUEING])
async def test_a_call_that_chooses_asks_for_another_link_where_that_is_better(queueing: float) -> None:
    picker = Counting(Link(queueing=queueing))
    picker.ways()
    assert picker.asked == [False] * (queueing > 0)


async def test_a_link_that_leaves_is_not_at_hand_any_more() -> None:
    one, two = Link(), Link()
    picker = Counting(one, two)
    picker.pick()
    one.usable, one.session.open_quota = False, 0  # as `Link.doom`, and a GOAWAY, leave it
    assert picker.ways() == ({two}, 1)
    picker.remove(one)
    assert picker.ways() == ({two}, 1)
    assert picker.links == [two]


async def test_bulk_of_one_service_costs_the_calls_of_others_nothing() -> None:
    """Neither before there is a link for it, nor while there is one, nor after."""
    one, two = Link(), Link()
    picker = Counting(one)
    picker.pick("web")
    picker._usage.moved("backup", BULK_BYTES, 1.0, trio.current_time())
    assert picker.ways("web") == ({one}, 0)
    assert picker.ways("backup") == ({one}, 10)
    assert picker.asked == [True] * 10
    assert picker.ways("web") == ({one}, 0)
    picker.add(two, False)
    one.open(3)
    assert picker.ways("backup") == ({two}, 10)
    assert two.bulk
    assert picker.ways("web") == ({one}, 1), "which looks at the new link"
    two.congested = True
    assert picker.ways("web") == ({one}, 0), "whatever the link for bulk is like"
    two.congested = two.session.bulk = False
    picker._usage.expire(trio.current_time() + BULK_MEMORY + 1)
    assert picker.ways("web") == ({one}, 0)
    assert picker.ways("backup") == ({one}, 0), "a service like any other"


async def test_many_calls_of_a_heavy_service_ask_for_a_look_whether_they_are() -> None:
    picker = Counting(Link())
    picker._usage.moved("backup", BULK_BYTES, 1.0, trio.current_time())
    picker.ways("backup", BULK_COUNT - 1)
    assert picker.looks == 0
    picker.ways("backup", BULK_COUNT + 1)
    assert picker.looks == 2
    picker.ways("web", 10 * BULK_COUNT)
    assert picker.looks == 2


async def test_the_only_link_is_at_hand_though_it_is_for_bulk() -> None:
    only = Link()
    only.session.bulk = True
    picker = Counting(only)
    assert picker.ways() == ({only}, 1)
    assert picker.asked == [False], "and another one is asked for"


async def test_a_link_for_bulk_is_not_at_hand_beside_one_that_is_full_only() -> None:
    full, bulk = Link(), Link()
    bulk.session.bulk = True
    picker = Counting(full, bulk)
    full.usable, full.session.open_quota = False, 0
    assert picker.ways() == ({bulk}, 10)
    full.usable, full.session.open_quota = True, 9
    assert picker.ways() == ({full}, 1), "one of its streams has ended"


async def test_a_link_that_was_opened_ahead_counts_once() -> None:
    picker = Counting()
    picker.add(Link(), True)
    assert picker.opened_ahead is picker.links[0]
    picker.ways()
    assert (picker._usage.ahead, picker.opened_ahead) == (1, None)


# In a pool


def short(home: Recording, service: str = "web") -> bool:
    """Whether a call takes the short way."""
    return home.picker.handy(service) is not None


async def test_after_congestion_calls_take_the_short_way_again(
    dialling: Dialling, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = pool(needed=True)
    async with running(home):
        theirs = dialling.succeeds()
        await until(lambda: home.up)
        link = home.links[0]
        home.pick("web")
        assert short(home)
        while not link.congested:
            for _ in range(100):
                link.session.out.put(FrameKind.PING, 0, bytes(8))
            home._pump.settle()
        assert not short(home)
        theirs.setblocking(False)
        while link.congested:
            try:
                theirs.recv(1 << 20)
            except BlockingIOError:
                await trio.sleep(0.001)
        home.pick("web")  # a look may have come in between
        assert short(home)


async def test_after_bulk_calls_take_the_short_way_again_though_nobody_calls_its_service(
    dialling: Dialling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "LOOK", 0.01)
    home = pool(needed=True, max_per_peer=1)
    async with running(home):
        dialling.succeeds()
        await until(lambda: home.up)
        home.usage.moved("backup", BULK_BYTES, 1.0, trio.current_time() - BULK_MEMORY + 0.2)
        home.pick("web")
        assert short(home, "web"), "also while it lasts"
        assert not short(home, "backup")
        await until(lambda: not home.usage.any_bulk)
        home.pick("web")
        assert short(home, "backup")
