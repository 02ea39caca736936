"""Links that are closed because nothing uses them, and opened again, on real links between two hosts."""

from __future__ import annotations

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import wait_all_tasks_blocked

from proxy.errors import CloseReason
from proxy.mux.frames import Open, encode_open
from proxy.pool import policy
from proxy.pool.policy import Dial, Retire
from proxy.pool.ttl import LEAD
from proxy.pool.usage import BULK_BYTES
from proxy.pump.lane import Lane
from tests.pool.hosts import CLOSING, KEEPING, Dialling, Record, Recording, Waiting, pool, running, two_hosts, until


@pytest.fixture(autouse=True)
def _looking_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "LOOK", 0.01)


def opened(home: Recording) -> Lane:
    """A stream on the link that the pool picks; a silent service at the far end takes it."""
    link = home.pick()
    assert link is not None
    lane = link.session.open(encode_open(Open("web")))
    lane.observer = Record()
    home._pump.settle()
    return lane


def told(lane: Lane) -> list[str]:
    observer = lane.observer
    assert isinstance(observer, Record)
    return observer.told


async def test_an_idle_link_ends_and_nobody_dials_another() -> None:
    with capture_logs() as logs:
        async with two_hosts(terms=(CLOSING, CLOSING), needed=(True, False)) as (a, b):
            await until(lambda: a.idle and b.idle and not a.links and not b.links)
            assert (a.idle, b.idle, a.dials, b.dials) == (True, True, 1, 0)
            waiting = Waiting(a)
            assert a.pick() is None
            assert a.wait(waiting)
            await until(lambda: waiting.link is not None)
            assert a.dials == 2
            # Not what is logged when both end at once: who closes first with a ping unread resets the other.
            meanwhile = list(logs)
    down = [entry for entry in meanwhile if entry["event"] == "link down"]
    assert [(entry["reason"], entry["streams"], entry["log_level"]) for entry in down] == [("idle", 0, "info")] * 2
    assert not [entry for entry in meanwhile if entry["log_level"] not in ("info", "debug")]


async def test_both_hosts_need_each_other_and_nothing_happens() -> None:
    """An end that one host chose is no reason for the other one to dial."""
    async with two_hosts(terms=(CLOSING, CLOSING)) as (a, b):
        await until(lambda: a.idle and b.idle and not a.links and not b.links)
        dials = a.dials + b.dials
        assert dials <= 2
        await until(lambda: not a.dialling and not b.dialling)
        assert (a.dials + b.dials, a.links, b.links) == (dials, [], [])


async def test_the_host_that_was_dialled_keeps_the_link() -> None:
    async with two_hosts(terms=(KEEPING, CLOSING), needed=(True, False)) as (a, b):
        await until(lambda: a.up and b.up)
        assert not isinstance(b.next_step(trio.current_time() + 1e6), Retire)
        assert a.up
        assert b.up


async def test_a_link_in_use_stays() -> None:
    async with two_hosts(needed=(True, False)) as (a, b):
        await until(lambda: a.up and b.up)
        lane = opened(a)
        a.usage._terms = CLOSING
        link = a.links[0]
        assert not isinstance(a.next_step(trio.current_time() + 1e6), Retire)
        assert not link.leaving
        lane.abort(CloseReason.ABORTED)
        a._pump.settle()
        await until(lambda: not a.links)
        assert link.reason is CloseReason.IDLE


@pytest.mark.failure(6, 8)
async def test_a_call_that_crosses_the_goaway_is_not_lost() -> None:
    """The host that was dialled opens a stream before it has learnt that the other one leaves."""
    async with two_hosts(terms=(KEEPING, KEEPING), needed=(True, False)) as (a, b):
        await until(lambda: a.up and b.up)
        link = a.links[0]
        link.retire()
        lane = opened(b)  # in the same moment: the GOAWAY is in the socket
        await until(lambda: len(a.sessions._calls.lanes) == 1)  # type: ignore[attr-defined]
        await until(lambda: b.links[0].leaving)
        a.sessions._calls.lanes[0].session.accept(a.sessions._calls.lanes[0])  # type: ignore[attr-defined]
        a._pump.settle()
        await until(lambda: "opened" in told(lane))
        assert not link.ended.is_set(), "the stream goes on"
        assert (a.pick(), b.pick()) == (None, None)
        assert told(lane) == ["opened"]
        lane.abort(CloseReason.ABORTED)
        b._pump.settle()
        await link.ended.wait()
        assert link.reason is CloseReason.IDLE


@pytest.mark.failure(6, 8)
@pytest.mark.parametrize("side", ["the host that closes", "the other host"])
async def test_a_call_while_a_link_leaves_waits_for_the_next_one(side: str) -> None:
    async with two_hosts(terms=(KEEPING, KEEPING), needed=(True, False), max_per_peer=1) as (a, b):
        await until(lambda: a.up and b.up)
        gone, caller = a.links[0], a if side == "the host that closes" else b
        gone.retire()
        if caller is b:
            await until(lambda: not b.links or b.links[0].leaving)
        waiting = Waiting(caller)
        assert caller.pick() is None
        assert caller.wait(waiting)
        await until(lambda: waiting.link is not None)
        assert waiting.link is not gone
        assert gone.reason is CloseReason.IDLE or not gone.ended.is_set()


@pytest.mark.failure(6, 8)
async def test_a_stream_that_keeps_a_leaving_link_does_not_block_the_pool() -> None:
    """Even with a limit of one: what leaves takes no streams, and does not count."""
    async with two_hosts(terms=(KEEPING, KEEPING), needed=(True, False), max_per_peer=1) as (a, b):
        await until(lambda: a.up and b.up)
        a.links[0].retire()
        opened(b)
        await until(lambda: len(a.sessions._calls.lanes) == 1)  # type: ignore[attr-defined]
        waiting = Waiting(a)
        assert a.wait(waiting)
        await until(lambda: waiting.link is not None)
        assert [link.leaving for link in a.links] == [True, False]


async def test_a_link_is_opened_ahead_of_an_expected_use(dialling: Dialling, autojump_clock: object) -> None:
    home = pool(needed=True, terms=KEEPING._replace(price=0.01 / 3600, low=1.0, ahead=True))
    start = trio.current_time()
    for run in range(10):
        home.usage.began(start - 5900 + 600 * run)
        home.usage.ended(start - 5900 + 600 * run + 0.1)
    home._unused = True
    async with running(home):
        await dialling.begins()
        assert dialling.at[0] - start == pytest.approx(100 - LEAD, abs=0.1)
        dialling.succeeds()
        await until(lambda: home.up)
        assert home.picker.opened_ahead is home.links[0]
        opened(home)
        assert (home.usage.warm, home.usage.ahead, home.picker.opened_ahead) == (1, 1, None)


async def test_warm_hits_are_those_that_did_not_wait() -> None:
    async with two_hosts(needed=(False, False)) as (a, _):
        waiting = Waiting(a)
        assert a.pick() is None
        assert a.wait(waiting)
        await waiting.up.wait()
        assert (a.usage.warm, a.usage.avoided) == (0, 0)
        for _ in range(3):
            opened(a)
        assert (a.usage.warm, a.usage.avoided) == (3, 3)


async def test_many_that_wait_for_one_handshake_avoid_all_others() -> None:
    async with two_hosts(needed=(False, False)) as (a, _):
        waiting = [Waiting(a) for _ in range(10)]
        assert all(a.wait(each) for each in waiting)
        for each in waiting:
            await each.up.wait()
        assert (a.usage.warm, a.usage.avoided) == (0, 9)


async def test_bulk_gets_a_link_of_its_own() -> None:
    async with two_hosts(needed=(True, False)) as (a, b):
        await until(lambda: a.up and b.up)
        opened(a)
        a.usage.moved("backup", BULK_BYTES, 1.0, trio.current_time())
        first = a.pick("backup")
        assert first is a.links[0], "nobody waits for the other link"
        await until(lambda: len(a.links) == 2)
        bulk = a.pick("backup")
        assert bulk is a.links[1]
        assert bulk is not None
        assert bulk.bulk
        assert a.pick("web") is a.links[0]
        assert a.pick("backup") is a.links[1]
        assert a.most == 2


async def crowded_once(home: Recording, dialling: Dialling, monkeypatch: pytest.MonkeyPatch) -> None:
    """One link is up, with a stream, and another one is dialled because the first was crowded for a moment."""
    dialling.succeeds()
    await until(lambda: home.up)
    await dialling.begins()
    opened(home)
    with monkeypatch.context() as patch:
        patch.setattr(policy, "CROWDED", 1)
        await dialling.begins()


async def test_a_link_for_bulk_is_not_asked_for_longer_than_there_is_room(
    dialling: Dialling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be dialled as soon as the other link is closed because nothing uses it."""
    home = pool(needed=True, max_per_peer=2)
    async with running(home):
        await crowded_once(home, dialling, monkeypatch)
        home.usage.moved("backup", BULK_BYTES, 1.0, trio.current_time())
        home.pick("backup")
        monkeypatch.setattr(policy, "SPARE", 0.0)
        dialling.succeeds()
        await until(lambda: len(home.links) == 2 and home.links[1].leaving)
        assert home.usage.any_bulk
        assert len(dialling.at) == 2


async def test_a_link_for_bulk_is_not_asked_for_once_there_is_one(
    dialling: Dialling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one more would be dialled when the heavy stream has ended."""
    home = pool(needed=True, max_per_peer=3)
    async with running(home):
        await crowded_once(home, dialling, monkeypatch)
        dialling.succeeds()
        await until(lambda: len(home.links) == 2)
        home.usage.moved("backup", BULK_BYTES, 1.0, trio.current_time())
        link = home.pick("backup")
        assert link is home.links[1]
        lane = link.session.open(encode_open(Open("backup")))
        assert not isinstance(home.next_step(trio.current_time()), Dial), "it is set apart"
        lane.abort(CloseReason.ABORTED)
        home._pump.settle()
        assert not isinstance(home.next_step(trio.current_time()), Dial)


async def test_a_spare_link_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "SPARE", 0.0)
    async with two_hosts(needed=(True, False)) as (a, b):
        await until(lambda: a.up and b.up)
        opened(a)
        a.usage.moved("backup", BULK_BYTES, 1.0, trio.current_time())
        a.pick("backup")
        await until(lambda: a.dials == 2 and len(a.links) == 1)
        assert a.links[0].streams == 1


async def test_an_invitation(dialling: Dialling) -> None:
    home = pool()
    async with running(home):
        home.invite()
        await dialling.begins()
        dialling.succeeds()
        await until(lambda: home.up)
        await wait_all_tasks_blocked()
        assert len(dialling.at) == 1
