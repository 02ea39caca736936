"""Peers come and go; their pools with them, some time later."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from ipaddress import ip_address

import msgspec
import pytest
import trio

from control.base.reading.addresses import TcpAddress
from proxy.config.schema import Config, LinksConfig, PeerConfig, ProxyLimits
from proxy.errors import CloseReason, HandshakeError
from proxy.mux.frames import Open, encode_open
from proxy.pool import dialling as module
from proxy.pool.pool import Pool
from proxy.pool.pools import Pools
from proxy.pump.budget import MemoryBudget
from proxy.pump.loop import Pump
from proxy.pump.turn import LaneReader
from tests.pool.hosts import Dialling, Record, pool, until

BASE = Config(host="host-a", links=LinksConfig(listen=TcpAddress("127.0.0.1", 0), security="none"))


@pytest.fixture
def dialling(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dialling]:
    found = Dialling()
    monkeypatch.setattr(module, "dial", found)
    yield found
    found.close()


class Rig:
    """Pools that run; `forgotten` has the names of peers whose pools are gone."""

    def __init__(self) -> None:
        self.pump = Pump(MemoryBudget(1 << 20), LaneReader())
        self.forgotten: list[str] = []
        self.pools = Pools(self._make, self.forgotten.append, self.pump.settle)

    def _make(self, name: str, peer: PeerConfig, needed: bool) -> Pool:
        return pool(name=name, needed=needed, pump=self.pump, address=peer.address)

    def adopt(self, *names: str, needed: str = "", seconds: float = 20.0) -> None:
        """These are the peers now."""
        peers = {name: PeerConfig(address=TcpAddress("127.0.0.1", 1)) for name in names}
        config = msgspec.structs.replace(BASE, peers=peers, limits=ProxyLimits(stop_timeout=seconds))
        touched = {*self.pools} ^ {*names}
        self.pools.adopt(config, touched, {needed} - {""}, False)


@asynccontextmanager
async def running() -> AsyncIterator[Rig]:
    rig = Rig()
    async with trio.open_nursery() as pumps:
        await pumps.start(rig.pump.run)
        async with trio.open_nursery() as nursery:
            await nursery.start(rig.pools.run)
            yield rig
            nursery.cancel_scope.cancel()
        pumps.cancel_scope.cancel()
    rig.pump.shut_down()


async def up(rig: Rig, name: str, dialling: Dialling) -> Pool:
    """The pool, with a link that carries a stream."""
    found = rig.pools[name]
    await dialling.begins()
    dialling.succeeds()
    await until(lambda: found.up)
    lane = found.links[0].session.open(encode_open(Open("web", 1, "")))
    lane.observer = Record()
    return found


async def test_they_are_a_mapping_in_the_order_of_the_configuration() -> None:
    async with running() as rig:
        rig.adopt("host-c", "host-b")
        assert list(rig.pools) == ["host-c", "host-b"]
        rig.adopt("host-b", "host-d", "host-c")
        assert [found.name for found in rig.pools.values()] == ["host-b", "host-d", "host-c"]
        assert rig.pools.get("host-x") is None


@pytest.mark.failure("21b-a")
@pytest.mark.parametrize(
    ("configured", "source", "expected"),
    [
        ("10.77.0.2", "10.77.0.2", True),
        ("10.77.0.2", "::ffff:10.77.0.2", True),
        ("10.77.0.2", "10.77.0.3", False),
        ("fd00:0::2", "fd00::2", True),
        ("fe80::2%eth0", "fe80::2%macvlan0", True),
        ("host-b.example", "10.77.0.2", False),
        ("host-b.example", "unknown", False),
    ],
)
async def test_where_a_peer_is_expected(configured: str, source: str, expected: bool) -> None:
    async with running() as rig:
        for address in (configured, "10.0.0.1"):
            peers = {"host-b": PeerConfig(address=TcpAddress(address, 1))}
            rig.pools.adopt(msgspec.structs.replace(BASE, peers=peers), {"host-b"}, set(), False)
            assert rig.pools.expects(source) == (expected and address == configured)


@pytest.mark.failure("21b-a")
async def test_a_peer_known_by_a_name_is_expected_where_it_was_last() -> None:
    async with running() as rig:
        peers = {"host-b": PeerConfig(address=TcpAddress("host-b.example", 1))}
        rig.pools.adopt(msgspec.structs.replace(BASE, peers=peers), {"host-b"}, set(), False)
        assert not rig.pools.expects("10.77.0.2")
        rig.pools["host-b"].met_at = ip_address("10.77.0.2")
        assert rig.pools.expects("10.77.0.2")
        assert rig.pools.expects("::ffff:10.77.0.2")
        assert not rig.pools.expects("10.77.0.3")
        assert not rig.pools.expects("unknown")


async def test_pools_that_were_there_before_the_start_run_when_it_is_done(dialling: Dialling) -> None:
    rig = Rig()
    rig.adopt("host-b", needed="host-b")
    async with trio.open_nursery() as nursery:
        await nursery.start(rig.pools.run)
        await dialling.begins()
        nursery.cancel_scope.cancel()
    rig.pump.shut_down()


async def test_a_peer_without_links_is_gone_at_once() -> None:
    async with running() as rig:
        rig.adopt("host-b")
        rig.adopt()
        assert len(rig.pools.everywhere) == 1
        await until(lambda: rig.forgotten == ["host-b"])
        assert rig.pools.everywhere == []


async def test_streams_are_waited_for_and_then_cut(dialling: Dialling) -> None:
    async with running() as rig:
        rig.adopt("host-b", needed="host-b")
        found = await up(rig, "host-b", dialling)
        [link] = found.links
        rig.adopt(seconds=0.05)
        assert (len(rig.pools), rig.pools.everywhere) == (0, [found])
        assert link.leaving
        await until(lambda: rig.forgotten == ["host-b"])
        assert link.reason.label == "stopped"
        await until(lambda: not found.links)


@pytest.mark.failure("21c")
@pytest.mark.parametrize("end", ["the link comes back", "time is over", "the peer comes back"])
async def test_a_removed_peer_that_an_outage_has_cut_off_is_waited_for(dialling: Dialling, end: str) -> None:
    """It is off the map because it cannot reach the control plane either: its streams wait as long as others do."""
    async with running() as rig:
        rig.adopt("host-b", needed="host-b")
        found = await up(rig, "host-b", dialling)
        [session] = found.sessions
        dialling.others[0].close()
        await until(lambda: session.suspended)
        await dialling.begins()
        rig.adopt(seconds=0.05)
        with trio.move_on_after(0.3):  # several times as long as a stream with a link would have
            await session.ended.wait()
        assert (session.over, rig.forgotten) == (False, [])
        if end == "the link comes back":
            dialling.resumes = True
            dialling.succeeds()
            await until(lambda: session.over)
            assert session.reason.label == "stopped"
        elif end == "time is over":
            session.end(CloseReason.RESUME_TIMEOUT)
            rig.pump.settle()
        else:
            rig.adopt("host-b", needed="host-b")
            dialling.resumes = True
            dialling.succeeds()
            await until(lambda: found.up or found.links != [])
            assert (rig.pools["host-b"], session.over) == (found, False)
            return
        await until(lambda: rig.forgotten == ["host-b"])


async def test_links_that_were_made_with_a_revoked_certificate_end_at_once(dialling: Dialling) -> None:
    """Also those of a peer that leaves. Others go on."""
    async with running() as rig:
        rig.adopt("host-b", "host-c", needed="host-b")
        found = await up(rig, "host-b", dialling)
        rig.adopt("host-b", "host-c", needed="host-c")
        other = await up(rig, "host-c", dialling)
        (mine,), (theirs,) = found.links, other.links
        mine.serial, theirs.serial = "ab", "cd"
        rig.adopt("host-c", needed="host-c")
        rig.pools.cut(frozenset(["ef"]))
        assert not mine.ended.is_set()
        rig.pools.cut(frozenset(["ab", "ef"]))
        assert mine.ended.is_set()
        assert (mine.reason.label, mine.detail) == ("revoked", "certificate ab")
        assert not theirs.ended.is_set()


async def test_a_peer_that_comes_back_finds_its_pool(dialling: Dialling) -> None:
    async with running() as rig:
        rig.adopt("host-b", needed="host-b")
        found = await up(rig, "host-b", dialling)
        rig.adopt()
        rig.adopt("host-b", needed="host-b")
        assert rig.pools["host-b"] is found
        assert [link.leaving for link in found.links] == [True]
        await dialling.begins()
        dialling.succeeds()
        await until(lambda: found.up)
        assert rig.forgotten == []


async def test_a_dial_under_way_is_given_up_when_the_peer_goes(dialling: Dialling) -> None:
    async with running() as rig:
        rig.adopt("host-b", needed="host-b")
        await dialling.begins()
        rig.adopt()
        await until(lambda: rig.forgotten == ["host-b"])
        assert dialling.now == 0


@pytest.mark.parametrize("come_back", [True, False])
async def test_a_dial_that_fails_while_the_peer_goes(dialling: Dialling, come_back: bool) -> None:
    async with running() as rig:
        rig.adopt("host-b", needed="host-b")
        await dialling.begins()
        dialling.fails(HandshakeError("no"))
        found = rig.pools["host-b"]
        await until(lambda: found.last_error is not None)
        rig.adopt()
        if come_back:
            rig.adopt("host-b", needed="host-b")
            await dialling.begins()
        else:
            await until(lambda: rig.forgotten == ["host-b"])


async def test_what_is_needed_changes(dialling: Dialling) -> None:
    async with running() as rig:
        rig.adopt("host-b", "host-c")
        rig.adopt("host-b", "host-c", needed="host-c")
        await dialling.begins()
        assert rig.pools["host-c"].dialling
        assert not rig.pools["host-b"].dialling


async def test_settings_are_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as rig:
        rig.adopt("host-b", "host-c")
        told: list[str] = []
        adopt: Callable[..., None] = Pool.adopt
        monkeypatch.setattr(Pool, "adopt", lambda self, *rest: (told.append(self.name), adopt(self, *rest)))
        peers = {name: found.peer for name, found in rig.pools.items()}
        rig.pools.adopt(msgspec.structs.replace(BASE, peers=peers), (), set(), True)
        assert sorted(told) == ["host-b", "host-c"]


@pytest.mark.failure("22")
async def test_while_they_are_hushed_no_peer_gets_a_link(dialling: Dialling) -> None:
    """Neither a peer that is there nor one that comes, or comes back; streams that are open go on."""
    async with running() as rig:
        rig.adopt("host-b", needed="host-b")
        found = await up(rig, "host-b", dialling)
        [link] = found.links
        rig.pools.hush(True)
        rig.pools.hush(True)
        rig.adopt("host-b", "host-c")
        rig.adopt("host-c")
        rig.adopt("host-b", "host-c")
        assert rig.pools["host-b"] is found
        assert link.leaving
        assert link.streams == 1
        assert [rig.pools[name].refuses() for name in ("host-b", "host-c")] == [CloseReason.DRAINING] * 2
        rig.pools.hush(False)
        assert [rig.pools[name].refuses() for name in ("host-b", "host-c")] == [None, None]
