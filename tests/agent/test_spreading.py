"""Streams that a process must cut whose place was taken are cut one by one, by a clock of the test's: at the deadline
of a takeover, and when a further one ends the oldest of three. (With whole proxies: test_drain, handover/test_sockets.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from control.base.system.commanders import Commanders
from proxy.agent import drain
from proxy.agent.drain import Drain
from proxy.agent.handover.leash import Leash
from proxy.agent.handover.memoryshares import Share
from proxy.agent.handover.predecessors import HURRY, MOST, Predecessors
from proxy.agent.openstreams import OpenStream
from proxy.links.carry import new_id
from proxy.pool.staggeredclose import LONGEST_SPREAD, SPREAD, TICK

pytestmark = pytest.mark.failure("24")

HOUR = 3600.0


@pytest.fixture(autouse=True)
def _no_log() -> Iterator[None]:
    with capture_logs():
        yield


class Process:
    """A process's drain, and streams of which none finishes by itself.

    Attributes:
        cuts: when each was cut, by trio's clock.
    """

    def __init__(self, count: int) -> None:
        self.cuts: list[float] = []
        self._left = {
            number: OpenStream(number, None, lambda number=number: self._cut(number)) for number in range(count)
        }
        self._empty = trio.Event()
        self.leash = Leash(new_id())
        pump = SimpleNamespace(settle=lambda: None)
        outbound = SimpleNamespace(
            stop_listening=lambda: None, context=SimpleNamespace(pump=pump), streams=lambda: [*self._left.values()]
        )
        parts: list[Any] = [outbound, SimpleNamespace(everywhere=()), self]
        self.drain = Drain(*parts, streams=lambda: iter(()))

    def _cut(self, number: int) -> None:
        if self._left.pop(number, None) is not None:
            self.cuts.append(trio.current_time())
        if not self._left:
            self._empty.set()

    async def run(self) -> None:
        """The drain, then what whoever runs a proxy does: end what is left, which was due in the last step."""
        await self.drain.run()
        self.cuts += [trio.current_time()] * len(self._left)
        self._left.clear()

    # As StreamStats

    @property
    def open(self) -> int:
        return len(self._left)

    async def idle(self) -> None:
        await self._empty.wait()

    # As leash.Follower

    def hurry(self) -> None:
        self.drain.begin(HURRY, succeeded=True)

    def link(self, connection: object) -> None:
        raise AssertionError("nobody passes one on")

    def may(self, share: Share) -> None:
        pass

    def uses(self) -> int:
        return 0


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Process]]:
    """Makes them; their leashes are closed afterwards."""
    monkeypatch.setattr(drain, "open_streams", lambda outbound, pools: outbound.streams())
    made: list[Process] = []

    def make(count: int) -> Process:
        made.append(Process(count))
        return made[-1]

    yield make
    for each in made:
        each.leash.close()


def are_spread(cuts: list[float], end: float, length: float) -> None:
    """All within the last `length` seconds, and in every part of them as many as its share, give or take one."""
    assert end - length <= cuts[0] <= cuts[-1] <= end + 2 * TICK
    parts = 10
    for part in range(parts):
        low = end - length + part * length / parts
        high = low + length / parts + (2 * TICK if part == parts - 1 else 0)
        share = len(cuts) / parts
        assert abs(sum(low <= when < high for when in cuts) - share) <= 1 + share / 10
    most = max(Counter(cuts).values())
    assert most <= 1 + 2 * len(cuts) * TICK / length, "at one moment"


@pytest.mark.parametrize(
    "cuts", [[100.0] * 20, [90.0] * 20, [90.0] * 10 + [100.0] * 10, [80.0 + 1 * n for n in range(20)]]
)
def test_what_is_not_spread(cuts: list[float]) -> None:
    with pytest.raises(AssertionError):
        are_spread(cuts, 100.0, 10.0)


@pytest.mark.parametrize("count", [20, 33, 1000, 10_000])
@pytest.mark.parametrize("seconds", [HOUR, 100.0, 8.0])
async def test_at_the_deadline_of_a_takeover(
    autojump_clock: MockClock, process: Callable[[int], Process], count: int, seconds: float
) -> None:
    old = process(count)
    old.drain.begin(seconds, succeeded=True)
    began = trio.current_time()
    await old.run()
    assert len(old.cuts) == count
    are_spread(old.cuts, began + seconds, min(SPREAD * seconds, LONGEST_SPREAD))
    assert (old.drain.cut, old.drain.closed_quiet) == (count, 0)


@pytest.mark.parametrize("count", [20, 33, 1000])
async def test_those_of_the_oldest_of_three_when_another_takes_over(
    autojump_clock: MockClock, process: Callable[[int], Process], count: int
) -> None:
    """And none of the two that may go on: theirs have their own time."""
    olds = [process(count) for _ in range(MOST + 1)]
    predecessors = Predecessors((old.leash.name, old.leash.far.dup()) for old in olds)
    ends = []
    async with trio.open_nursery() as nursery:
        for old in olds:
            old.drain.begin(HOUR, succeeded=True)
            ends.append(trio.current_time() + HOUR)
            nursery.start_soon(old.run)
            nursery.start_soon(old.leash.follow, old, cast(Commanders, None))
            await trio.sleep(600)
        predecessors.bound()
        ends[0] = trio.current_time() + HURRY
        await olds[0].drain.over.wait()
        assert [len(old.cuts) for old in olds[1:]] == [0] * MOST
        for old in olds[1:]:
            await old.drain.over.wait()
        nursery.cancel_scope.cancel()
    predecessors.close()
    for old, end in zip(olds, ends, strict=True):
        assert len(old.cuts) == count
        are_spread(old.cuts, end, SPREAD * HURRY if old is olds[0] else LONGEST_SPREAD)


@pytest.mark.parametrize("left", [10.0, 40.0])
async def test_one_that_is_told_to_hurry_near_its_own_deadline_keeps_to_that(
    autojump_clock: MockClock, process: Callable[[int], Process], left: float
) -> None:
    """It has less time than HURRY: what is cut already is not cut again, and the rest not at one moment."""
    old = process(200)
    began = trio.current_time()
    old.drain.begin(HOUR, succeeded=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(old.run)
        await trio.sleep(HOUR - left)
        old.hurry()
        await old.drain.over.wait()
    are_spread(old.cuts, began + HOUR, LONGEST_SPREAD)
    assert old.drain.cut == 200
