"""What sessions without a link keep, and which of them ends when that is too much."""

from __future__ import annotations

import pytest

from proxy.errors import CloseReason
from proxy.links.handshake import Hello
from proxy.mux.frames import Open, encode_open
from proxy.mux.replay import Flusher
from proxy.mux.sizes import SLAB_SIZE
from proxy.pool.suspendedbytes import SuspendedBytes, kept_by
from proxy.pump.budget import MemoryBudget
from proxy.pump.loop import Pump
from proxy.pump.session import LaneSession
from proxy.pump.turn import LaneReader
from tests.pool.hosts import Record, Recording, hello, pool

pytestmark = pytest.mark.failure("21c")


class Rig:
    """Pools for several peers that share one bound."""

    def __init__(self, limit: int) -> None:
        self.pump = Pump(MemoryBudget(limit), LaneReader())
        self.kept = SuspendedBytes(lambda: self.pump.budget.limit)
        self.observers: list[Record] = []
        self._pools: list[Recording] = []

    def suspended(self, *, streams: int = 1) -> LaneSession:
        """A session with another peer, which has lost its link after those before."""
        number = len(self._pools)
        home = pool(name=f"host-{number}", pump=self.pump, kept=self.kept)
        self._pools.append(home)
        theirs = Hello(host=home.name, to="host-a", instance="2", session="s", stream_credit=1 << 20, max_streams=9)
        session = home.sessions.begin(theirs, hello("host-a", 9, home.name, "s"), True)
        for _ in range(streams):
            observer = session.open(encode_open(Open("web"))).observer = Record()
            self.observers.append(observer)
        session.suspend()
        session.lost_at = float(number)
        home.sessions.add(session)
        self.pump.settle()
        return session

    def close(self) -> None:
        for home in self._pools:
            for session in home.sessions:
                session.end(CloseReason.STOPPED)
        self.pump.settle()
        self.pump.shut_down()
        assert (self.kept.total, self.pump.slabs.in_use) == (0, 0)


def write(session: LaneSession, size: int) -> None:
    """As local sockets do that are read while there is no link."""
    before = session.out.unacked
    while session.out.unacked < before + size:
        session.ping(1)
    session.pump.settle()


async def test_the_one_that_has_waited_longest_ends() -> None:
    limit = 4 * SLAB_SIZE + 1000
    rig = Rig(limit)
    sessions = [rig.suspended() for _ in range(3)]
    assert not any(session.over for session in sessions)
    write(sessions[2], 2 * SLAB_SIZE)
    assert [session.over for session in sessions] == [True, False, False]
    assert sessions[0].reason is CloseReason.OVER_BUDGET
    assert sessions[0].detail.endswith(f"and limits.memory is {limit}")
    assert [observer.told for observer in rig.observers] == [["over_budget"], [], []]
    rig.close()


async def test_one_without_streams_ends_before_all_others() -> None:
    rig = Rig(3 * SLAB_SIZE)
    old, idle = rig.suspended(), rig.suspended(streams=0)
    third = rig.suspended()
    assert (old.over, idle.over, third.over) == (False, True, False)
    rig.close()


async def test_as_many_as_must() -> None:
    rig = Rig(16 * SLAB_SIZE)
    sessions = [rig.suspended() for _ in range(8)]
    rig.pump.budget.limit = 3 * SLAB_SIZE  # a reload
    write(sessions[7], 10)
    assert [session.over for session in sessions] == [True] * 6 + [False] * 2
    rig.close()


async def test_what_has_a_link_again_does_not_count() -> None:
    class Link(Flusher):
        local_address = remote_address = ""
        rtt: float | None = None

        def flush(self) -> None:
            """As a link whose socket takes nothing."""

        def doom(self, reason: CloseReason, detail: str = "") -> None:
            raise AssertionError(detail)

    rig = Rig(3 * SLAB_SIZE + 1000)
    first, second = rig.suspended(), rig.suspended()
    assert rig.kept.total == kept_by(first) + kept_by(second)
    first.out.flusher = link = Link()
    first.carry_on(link)
    write(first, 2 * SLAB_SIZE)
    assert rig.kept.total == kept_by(second)
    first.suspend()
    rig.pump.settle()
    assert (first.over, second.over) == (False, True), "it has waited for longer now"
    rig.close()
