from __future__ import annotations

import itertools
from functools import partial

import msgspec
import pytest
import structlog
import trio
import trio.testing

from control.api import mesh
from control.api.mesh import HostRecord, MapChanges, MapHeartbeat, MapSnapshot
from control.base.errors import RequestRefused
from control.server.feed import MapFeed
from control.server.routes import Caller
from control.server.servers import ServerRecord
from control.server.spread import LONGEST_WAIT
from control.server.watching import PACE, TOGETHER, MapWatchers

CALLER = Caller("10.0.0.1", "host-a", "1f", 1000.0)


def host(name: str) -> HostRecord:
    return HostRecord(name=name, address="10.77.0.1:7600", instance="1")


class Heard:
    """What one watcher was sent."""

    def __init__(self) -> None:
        self.messages: list[mesh.WatchLine] = []
        self.times: list[float] = []

    async def send(self, line: bytes) -> None:
        assert line.endswith(b"\n")
        self.messages.append(msgspec.json.decode(line, type=mesh.WatchLine))
        self.times.append(trio.current_time())


@pytest.fixture
def watching() -> MapWatchers:
    made = MapWatchers(2, now=lambda: 500.0)
    made.feed = MapFeed("e", 1, {}, None)
    return made


def change(watching: MapWatchers, revision: int) -> None:
    assert watching.feed is not None
    watching.feed.change(revision, [host(f"h{revision}")])
    watching.publish()


async def test_snapshot_then_changes_then_heartbeats(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, watching: MapWatchers
) -> None:
    heard = Heard()
    await nursery.start(watching.run)
    nursery.start_soon(watching.watch, CALLER, "", 0, heard.send)
    await trio.testing.wait_all_tasks_blocked()
    change(watching, 2)
    await trio.sleep(2.5 * mesh.HEARTBEAT)
    kinds = [type(message) for message in heard.messages]
    assert kinds == [MapSnapshot, MapChanges, MapHeartbeat, MapHeartbeat]
    assert heard.times[1] < PACE
    gaps = [later - before for before, later in zip(heard.times, heard.times[1:], strict=False)]
    assert max(gaps) <= mesh.HEARTBEAT + 0.01
    nursery.cancel_scope.cancel()


async def test_a_storm_is_told_in_few_messages(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, watching: MapWatchers
) -> None:
    heard = Heard()
    await nursery.start(watching.run)
    nursery.start_soon(watching.watch, CALLER, "e", 1, heard.send)
    for revision in range(2, 102):
        change(watching, revision)
        await trio.sleep(0.01)
    await trio.sleep(PACE)
    changes = [message for message in heard.messages if isinstance(message, MapChanges)]
    assert len(changes) <= 1 / PACE + 2
    assert {record.name for message in changes for record in message.put} == {f"h{number}" for number in range(2, 102)}
    nursery.cancel_scope.cancel()


async def test_watches_end_when_the_store_is_lost_and_when_the_server_stops(
    autojump_clock: trio.testing.MockClock, watching: MapWatchers
) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(watching.run)
        async with trio.open_nursery() as watchers:
            watchers.start_soon(watching.watch, CALLER, "", 0, Heard().send)
            await trio.testing.wait_all_tasks_blocked()
            feed, watching.feed = watching.feed, None
            watching.publish()
        with pytest.raises(RequestRefused, match="no view of its store"):
            watching.admit()
        # Admitted before that, and begun after it.
        await watching.watch(CALLER, "", 0, Heard().send)
        watching.feed = feed
        async with trio.open_nursery() as watchers:
            watchers.start_soon(watching.watch, CALLER, "", 0, Heard().send)
            await trio.testing.wait_all_tasks_blocked()
            watching.end()
        await watching.watch(CALLER, "", 0, Heard().send)
        assert watching.watchers == 0
        nursery.cancel_scope.cancel()


async def test_a_watch_ends_with_its_certificate(autojump_clock: trio.testing.MockClock, watching: MapWatchers) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(watching.run)
        async with trio.open_nursery() as watchers:
            watchers.start_soon(watching.watch, CALLER, "", 0, Heard().send)
            await trio.testing.wait_all_tasks_blocked()
            watching.revoked = frozenset({"1f"})
            watching.publish()
        nursery.cancel_scope.cancel()
    for caller, code, words in (
        (CALLER, "revoked", "this certificate of host host-a has been revoked"),
        (Caller("10.0.0.1", "host-a", "2", expires=499.0), "expired", "has expired: on 1970-01-01"),
        (Caller("10.0.0.1", "host-a", "2", expires=900.0, began=560.0), "early", "not valid before 1970-01-01 00:09"),
        (Caller("10.0.0.1", "host-a", "2", expires=501.0, issuer=b"old"), "dropped", "a CA that is no longer in force"),
    ):
        watching.issuers = frozenset({b"new"})
        refusal = watching.refuses(caller)
        assert refusal is not None
        assert (refusal.status, refusal.code) == (403, code)
        assert words in str(refusal)
    for caller in (Caller("local", admin=True), Caller("10.0.0.1", "host-a", "2", expires=501.0, issuer=b"new")):
        assert watching.refuses(caller) is None


async def test_no_more_watchers_than_allowed(autojump_clock: trio.testing.MockClock, watching: MapWatchers) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            watching.admit()
            nursery.start_soon(watching.watch, CALLER, "", 0, Heard().send)
            await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(RequestRefused, match="more than 2 watchers"):
            watching.admit()
        nursery.cancel_scope.cancel()


async def test_a_watcher_that_is_ready_for_more_waits_for_the_next_telling(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, watching: MapWatchers
) -> None:
    # Else each of a thousand would be told of each of a thousand newcomers.
    times: list[float] = []

    async def send(line: bytes) -> None:
        times.append(trio.current_time())
        change(watching, len(times) + 1)

    await nursery.start(watching.run)
    nursery.start_soon(watching.watch, CALLER, "", 0, send)
    await trio.sleep(10.5 * PACE)
    assert len(times) == 12
    gaps = [later - before for before, later in itertools.pairwise(times[1:])]
    assert min(gaps) >= 0.99 * PACE
    nursery.cancel_scope.cancel()


async def test_what_comes_while_a_watcher_is_sent_something_is_told_to_it_next(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, watching: MapWatchers
) -> None:
    heard = Heard()

    async def slow(line: bytes) -> None:
        await trio.sleep(1.0)
        await heard.send(line)

    await nursery.start(watching.run)
    nursery.start_soon(watching.watch, CALLER, "", 0, slow)
    await trio.sleep(0.5)
    change(watching, 2)
    await trio.sleep(2.0)
    assert [type(message) for message in heard.messages] == [MapSnapshot, MapChanges]
    nursery.cancel_scope.cancel()


async def test_the_end_also_reaches_a_watcher_that_is_being_sent_something(
    autojump_clock: trio.testing.MockClock, watching: MapWatchers
) -> None:
    async def slow(line: bytes) -> None:
        await trio.sleep(1.0)

    with trio.fail_after(5):
        async with trio.open_nursery() as watchers:
            watchers.start_soon(watching.watch, CALLER, "", 0, slow)
            await trio.sleep(0.5)
            watching.end()


@pytest.mark.failure(4)
async def test_a_watcher_that_takes_nothing_holds_up_nobody(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, watching: MapWatchers
) -> None:
    async def stalled(line: bytes) -> None:
        await trio.sleep_forever()

    heard = Heard()
    await nursery.start(watching.run)
    nursery.start_soon(watching.watch, CALLER, "", 0, stalled)
    nursery.start_soon(watching.watch, CALLER, "", 0, heard.send)
    await trio.testing.wait_all_tasks_blocked()
    change(watching, 2)
    await trio.sleep(PACE)
    assert isinstance(heard.messages[-1], MapChanges)
    nursery.cancel_scope.cancel()


async def test_watchers_are_woken_a_few_at_a_time(nursery: trio.Nursery) -> None:
    number = 3 * TOGETHER
    watching = MapWatchers(number, now=lambda: 500.0)
    watching.feed = MapFeed("e", 1, {}, None)
    rounds: list[int] = []
    now = 0
    told = trio.Event()

    class Rounds(trio.abc.Instrument):
        def before_io_wait(self, timeout: float) -> None:
            nonlocal now
            now += 1

    async def send(line: bytes) -> None:
        rounds.append(now)
        if len(rounds) == 2 * number:
            told.set()

    await nursery.start(watching.run)
    for _ in range(number):
        nursery.start_soon(watching.watch, CALLER, "e", 1, send)
    await trio.testing.wait_all_tasks_blocked()
    instrument = Rounds()
    trio.lowlevel.add_instrument(instrument)
    change(watching, 2)
    with trio.fail_after(20):
        await told.wait()
    trio.lowlevel.remove_instrument(instrument)
    # The first line of each was that there is nothing new.
    assert max(rounds.count(each) for each in rounds[number:]) <= TOGETHER
    nursery.cancel_scope.cancel()


def elsewhere(watching: MapWatchers, **others: int) -> None:
    """Other control servers have so many watchers."""
    for name, count in others.items():
        value = ServerRecord(name=name, address=f"{name}:7601", watchers=count, most=100)
        watching.servers.put(name, msgspec.json.encode(value))


@pytest.mark.failure("31")
async def test_watchers_that_are_willing_are_asked_to_go_when_other_servers_have_fewer(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("control.server.watching.ASKED_EVERY", 60.0)
    watching = MapWatchers(100, now=lambda: 500.0)
    watching.feed = MapFeed("e", 1, {}, None)
    await nursery.start(watching.run)
    willing, others = [Heard() for _ in range(6)], [Heard() for _ in range(2)]
    leaving = trio.Event()
    with structlog.testing.capture_logs():
        for heard in willing:
            nursery.start_soon(partial(watching.watch, CALLER, "", 0, heard.send, gone=leaving.wait))
        for heard in others:
            nursery.start_soon(watching.watch, CALLER, "", 0, heard.send)
        await trio.testing.wait_all_tasks_blocked()
        watching.even_out()
        await trio.sleep(61)
        assert not any(map(asked, willing)), "this is the only server"
        elsewhere(watching, b=2)
        watching.even_out()
        await trio.sleep(2)
        assert sum(map(asked, willing)) == 3, "down to the mean"
        # Nobody has gone: it waits for a round, and they are watchers as before.
        watching.even_out()
        watching.even_out()
        await trio.sleep(2)
        assert (sum(map(asked, willing)), watching.watchers) == (6, 8), "others than the first time"
        for _ in range(10):
            watching.even_out()
        await trio.sleep(2)
        assert all(asked(heard) == 1 for heard in willing), "one that was asked is left alone for a while"
        assert not any(map(asked, others)), "and one of an earlier version for good"
        await trio.sleep(60)
        leaving.set()
        for _ in range(LONGEST_WAIT):
            watching.even_out()
        await trio.sleep(2)
        assert watching.watchers == 5, "who goes is no watcher here from then on"
    # While a feed is lost nothing is known of others.
    watching.feed = None
    watching.even_out()
    nursery.cancel_scope.cancel()


def asked(heard: Heard) -> int:
    return heard.messages.count(mesh.MapElsewhere())


@pytest.mark.failure("31")
def test_who_was_sent_is_taken_only_by_a_server_that_has_fewer(watching: MapWatchers) -> None:
    with pytest.raises(RequestRefused) as caught:
        watching.admit(sent=True)
    assert (caught.value.status, caught.value.code) == (503, "even")
    elsewhere(watching, b=2)
    watching.admit(sent=True)
    watching.watchers = 1
    watching.admit()
    with pytest.raises(RequestRefused, match="has its share of the watchers"):
        watching.admit(sent=True)
