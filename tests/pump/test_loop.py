"""The loop: whose turn it is, the end of a turn, and what one bug may cost."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import AsyncIterator, Callable, MutableMapping
from functools import partial
from select import EPOLLHUP, EPOLLIN, EPOLLOUT
from typing import Any

import pytest
import trio

from proxy.core.syscalls import Epoll
from proxy.mux.frames import FrameKind, encode
from proxy.mux.replay import Flusher, ReplayBuffer
from proxy.pump.budget import MemoryBudget
from proxy.pump.busypoll import BusyPoll
from proxy.pump.loop import LONG_TURNS, Pump, Reader
from proxy.pump.pace import FEW_EVENTS, MAX_EVENTS, PROBE
from proxy.pump.turn import LaneReader
from tests.pump.rig import until
from tests.tools.sockets import PATIENCE


class Spy:
    """A watcher that writes down what it is told."""

    def __init__(self, act: Callable[[int], None] = lambda mask: None) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.masks: list[int] = []
        self.crashes = 0
        self._act = act

    def ready(self, mask: int) -> None:
        self.masks.append(mask)
        self._act(mask)

    def crashed(self) -> None:
        self.crashes += 1

    def abandoned(self) -> None:
        pass


class Bench:
    """A pump that is running, and its spies."""

    def __init__(self, pump: Pump) -> None:
        self.pump = pump
        self.spies: list[Spy] = []

    def spy(self, mask: int = EPOLLIN, act: Callable[[int], None] = lambda mask: None) -> Spy:
        spy = Spy(act)
        self.spies.append(spy)
        self.pump.watch(spy.ours.fileno(), spy, mask)
        return spy


@pytest.fixture(params=[0.0, 0.0005], ids=["", "busy poll"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    pump = Pump(MemoryBudget(1 << 20), LaneReader(), BusyPoll(request.param))
    bench = Bench(pump)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            await nursery.start(pump.run)
            yield bench
            nursery.cancel_scope.cancel()
    for spy in bench.spies:
        spy.ours.close()
        spy.theirs.close()
    pump.shut_down()
    assert pump._epoll.fileno() == -1


async def test_a_watcher_is_told(bench: Bench) -> None:
    spy = bench.spy(act=lambda mask: drain(spy))
    spy.theirs.send(b"x")
    await until(lambda: spy.masks == [EPOLLIN], "told")
    spy.theirs.close()
    await until(lambda: EPOLLIN | EPOLLHUP in spy.masks, "told of the end")
    bench.pump.release(spy.ours)


def drain(spy: Spy) -> None:
    spy.ours.recv(65536)


async def test_interest_can_be_changed(bench: Bench) -> None:
    spy = bench.spy(act=lambda mask: bench.pump.interest(spy.ours.fileno(), 0))
    spy.theirs.send(b"x")
    await until(lambda: spy.masks == [EPOLLIN], "told")
    spy.theirs.send(b"more")
    bench.pump.interest(spy.ours.fileno(), EPOLLOUT)
    await until(lambda: spy.masks == [EPOLLIN, EPOLLOUT], "told of room only")


async def test_a_hang_up_without_interest_is_told_once(bench: Bench) -> None:
    """It cannot be switched off, and told for ever it would burn the processor."""
    spy, other = bench.spy(mask=0), bench.spy(act=lambda mask: drain(other))
    spy.theirs.close()
    await until(lambda: spy.masks, "told of the hang-up")
    for number in range(20):
        other.theirs.send(b"x")
        await until(lambda number=number: len(other.masks) > number, "another turn")  # type: ignore[misc]
    assert len(spy.masks) == 1


async def test_another_watcher_takes_over(bench: Bench) -> None:
    first, second = bench.spy(), Spy(lambda mask: drain(first))
    bench.pump.hand_on(first.ours.fileno(), second)
    first.theirs.send(b"x")
    await until(lambda: second.masks, "told")
    assert first.masks == []
    for sock in (second.ours, second.theirs):
        sock.close()


async def test_what_is_put_off_is_done_in_the_next_turn(bench: Bench) -> None:
    order: list[str] = []

    def act(mask: int) -> None:
        if mask:
            drain(spy)
            bench.pump.again(spy)
            bench.pump.at_end(lambda: order.append("turn's end"))
        else:
            order.append("the rest")

    spy = bench.spy(act=act)
    spy.theirs.send(b"x")
    await until(lambda: len(order) == 2, "both")
    assert order == ["turn's end", "the rest"]
    assert spy.masks == [EPOLLIN, 0]


# ------------------------------------------------------------------------------------------------------------- fairness


async def test_a_turn_handles_a_bounded_number_and_all_get_theirs(bench: Bench) -> None:
    """Ready all the time: each is served again only after every other one was."""
    served: list[int] = []
    turns = [0]
    count = 3 * MAX_EVENTS

    def serve(number: int) -> None:
        if not turns[-1]:
            bench.pump.at_end(lambda: turns.append(0))
        turns[-1] += 1
        served.append(number)

    for number in range(count):
        bench.spy(act=lambda mask, number=number: serve(number)).theirs.send(b"x")  # type: ignore[misc]
    await until(lambda: len(served) >= 10 * count, "ten rounds")
    assert max(turns) <= MAX_EVENTS
    for start in range(0, 9 * count, count):
        assert sorted(served[start : start + count]) == list(range(count))


async def test_few_messages_are_taken_few_at_a_time_and_a_crowd_as_a_crowd() -> None:
    """So that the peer works on these while this host gathers the next."""

    class Counted(Reader):
        def read(self, found: Epoll, count: int, lanes: list[Any]) -> int:
            looks.append(count)
            return 0

    looks: list[int] = []
    pump = Pump(MemoryBudget(1 << 20), Counted())
    bench = Bench(pump)
    async with trio.open_nursery() as nursery:
        await nursery.start(pump.run)
        for _ in range(FEW_EVENTS + 2):
            bench.spy().theirs.send(b"never read")
        await until(lambda: len(looks) > 8 * (PROBE + 1), "many turns")
        assert sorted(looks[4 * (PROBE + 1) : 6 * (PROBE + 1)]) == [FEW_EVENTS] * 2 * PROBE + [FEW_EVENTS + 2] * 2
        for _ in range(MAX_EVENTS):
            bench.spy().theirs.send(b"never read")
        looks.clear()
        await until(lambda: len(looks) > 4 * (PROBE + 1), "many more")
        assert set(looks[PROBE + 1 :]) == {MAX_EVENTS}
        nursery.cancel_scope.cancel()
    for spy in bench.spies:
        pump.release(spy.ours)
        spy.ours.close()
        spy.theirs.close()
    pump.shut_down()


async def test_trios_other_tasks_run_while_the_pump_is_busy_all_the_time(bench: Bench) -> None:
    spy = bench.spy()
    spy.theirs.send(b"never read")
    await until(lambda: spy.masks, "busy")
    for _ in range(5):
        before = len(spy.masks)
        await trio.lowlevel.checkpoint()
        await until(lambda before=before: len(spy.masks) > before, "busy still")  # type: ignore[misc]


# ------------------------------------------------------------------------------------------------------- a turn's end


async def test_descriptors_are_closed_at_the_turns_end_only(bench: Bench) -> None:
    """Of two that are ready in one look, the first closes the second's socket and opens another: a descriptor's number
    must not come back within the turn, or the second's event would reach a stranger.
    """
    opened: list[socket.socket] = []
    strangers: list[int] = []

    def close_the_other(spy: Spy, other: Spy) -> None:
        if not opened:
            closed = other.ours.fileno()
            bench.pump.close(other.ours)
            opened.extend(socket.socketpair())
            strangers.extend(sock.fileno() for sock in opened if sock.fileno() == closed)
            assert os.fstat(closed)
        drain(spy)

    one = bench.spy(act=lambda mask: close_the_other(one, two))
    two = bench.spy(act=lambda mask: close_the_other(two, one))
    one.theirs.send(b"x")
    two.theirs.send(b"x")
    await until(lambda: opened, "closed")
    await until(lambda: one.ours.fileno() < 0 or two.ours.fileno() < 0, "closed at the end")
    assert strangers == []
    assert sorted(len(spy.masks) for spy in (one, two)) == [0, 1], "no event for what was let go"
    for sock in opened:
        sock.close()


class Told(Flusher):
    """One that calls a function."""

    def __init__(self, flush: Callable[[], None]) -> None:
        self._told = flush

    def flush(self) -> None:
        self._told()


async def test_settle_sends_once_for_each_buffer_and_goes_on_until_all_is_done(bench: Bench) -> None:
    pump = bench.pump
    buffers = [ReplayBuffer(pump.slabs, pump.touched, pump.later, 1 << 20) for _ in range(2)]
    flushed: list[int] = []

    def flush(number: int) -> None:
        flushed.append(number)
        if len(flushed) == 1:
            buffers[1].put(FrameKind.PING, 0, bytes(8))
            pump.at_end(lambda: buffers[0].put(FrameKind.PING, 0, bytes(8)))

    for number, out in enumerate(buffers):
        out.flusher = Told(partial(flush, number))
    for _ in range(3):
        buffers[0].put(FrameKind.PING, 0, bytes(8))
    pump.settle()
    assert sorted(flushed) == [0, 0, 1]
    assert not any(out.dirty for out in buffers)
    buffers[0].flusher = None
    buffers[0].put(FrameKind.PING, 0, bytes(8))
    pump.settle()
    assert len(flushed) == 3
    for out in buffers:
        out.flusher = None
        out.close()
    assert pump.slabs.in_use == 0


async def test_a_frame_that_may_wait_for_company_is_sent_when_none_comes(bench: Bench) -> None:
    pump = bench.pump
    out = ReplayBuffer(pump.slabs, pump.touched, pump.later, 1 << 20)
    sent: list[bytes] = []

    def flush() -> None:
        sent.append(bytes(out.unsent_view()))
        out.sent = out.end

    def answer(mask: int) -> None:
        for letter in spy.ours.recv(100):
            out.put(FrameKind.PING if letter == ord("p") else FrameKind.OPENED, 0, deferrable=letter != ord("p"))

    out.flusher = Told(flush)
    spy = bench.spy(act=answer)
    spy.theirs.send(b"o")
    await until(lambda: sent, "sent alone")
    spy.theirs.send(b"oop")
    await until(lambda: len(sent) > 1, "sent with another one")
    out.put(FrameKind.OPENED, 0, deferrable=True)
    pump.settle()
    assert sent == [
        encode(FrameKind.OPENED),
        encode(FrameKind.OPENED) * 2 + encode(FrameKind.PING),
        encode(FrameKind.OPENED),
    ]
    assert pump.later == []
    out.flusher = None
    out.close()


async def test_a_frame_that_may_wait_for_company_does_not_wait_out_a_long_look() -> None:
    class Looks(BusyPoll):
        def looked(self, before: float, now: float) -> bool:
            looks.append(bool(sent))
            return super().looked(before, now)

    looks: list[bool] = []
    sent: list[int] = []
    pump = Pump(MemoryBudget(1 << 20), LaneReader(), Looks(0.01))
    out = ReplayBuffer(pump.slabs, pump.touched, pump.later, 1 << 20)

    def flush() -> None:
        sent.append(out.unsent)
        out.sent = out.end

    def answer(mask: int) -> None:
        looks.clear()
        sent.clear()
        spy.ours.recv(4096)
        out.put(FrameKind.OPENED, 0, deferrable=True)

    out.flusher = Told(flush)
    bench = Bench(pump)
    async with trio.open_nursery() as nursery:
        await nursery.start(pump.run)
        spy = bench.spy(act=answer)
        # Behind a turn that takes long, as where the machine has other work, it does not look: then again.
        await until(lambda: looks or not spy.theirs.send(b"o"), "a look in vain")
        nursery.cancel_scope.cancel()
    assert looks[0], "sent before"
    pump.release(spy.ours)
    spy.ours.close()
    spy.theirs.close()
    out.flusher = None
    out.close()
    pump.shut_down()


async def test_what_turns_take_is_counted_and_the_long_ones_are_told_apart(bench: Bench) -> None:
    def act(mask: int) -> None:
        drain(spy)
        if slow:
            time.sleep(0.004)

    slow = False
    spy = bench.spy(act=act)
    spy.theirs.send(b"x")
    await until(lambda: spy.masks, "told")
    await until(lambda: bench.pump.busy > 0, "counted")
    slow = True
    spy.theirs.send(b"x")
    await until(lambda: sum(bench.pump.long_turns.counts[LONG_TURNS.index(0.0025) + 1 :]), "the long one")
    assert bench.pump.long_turns.total >= 0.004
    assert bench.pump.busy >= bench.pump.long_turns.total
    assert bench.pump.long_turns.count <= bench.pump.turns


# ---------------------------------------------------------------------------------------------------------------- bugs


@pytest.mark.failure(18)
async def test_a_bug_in_one_watcher_is_its_own_affair(bench: Bench, logs: list[MutableMapping[str, Any]]) -> None:
    def fail(mask: int) -> None:
        drain(bad)
        raise RuntimeError("a bug")

    bad, good = bench.spy(act=fail), bench.spy(act=lambda mask: drain(good))
    for spy in (bad, good):
        spy.theirs.send(b"x")
    await until(lambda: bad.crashes and good.masks, "both told")
    assert bad.crashes == 1
    assert good.crashes == 0
    [entry] = [entry for entry in logs if entry["log_level"] == "error"]
    assert entry["watcher"] == "Spy"
