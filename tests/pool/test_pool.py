from __future__ import annotations

import socket
import struct
from collections.abc import Callable

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import wait_all_tasks_blocked

from proxy.config.schema import ProxyLimits
from proxy.demo.certificates import CertificateAuthority
from proxy.errors import CloseReason, HandshakeError
from proxy.links.carry import HandshakeResult
from proxy.links.handshake import Hello
from proxy.mux.frames import FrameKind, Open, encode, encode_open, encode_reason
from proxy.pool.policy import CROWDED
from tests.links.wire import tcp_pair
from tests.pool.hosts import Dialling, Record, Waiting, pool, running, two_hosts, until
from tests.tools.sockets import fds_since, open_fds
from tests.tools.tls import of_host

NO_ANSWER = HandshakeError("Connection refused", CloseReason.PEER_UNREACHABLE)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# Dialling


async def test_nobody_asks_nobody_dials(dialling: Dialling) -> None:
    async with running(pool()):
        await wait_all_tasks_blocked()
    assert dialling.at == []


async def test_a_pool_that_an_upstream_needs_dials_at_once(dialling: Dialling) -> None:
    home = pool(needed=True)
    async with running(home):
        await dialling.begins()
        assert home.dialling
        dialling.succeeds()
        await until(lambda: home.up)
    assert (home.dials, home.last_error, home.dialling) == (1, None, False)


@pytest.mark.failure(9)
async def test_one_dial_for_any_number_of_waiting_streams(dialling: Dialling) -> None:
    home = pool()
    waiting = [Waiting(home) for _ in range(1000)]
    async with running(home):
        for each in waiting:
            assert home.pick() is None
            assert home.wait(each)
        await dialling.begins()
        await wait_all_tasks_blocked()
        assert (len(dialling.at), home.waiting) == (1, 1000)
        dialling.succeeds()
        for each in waiting:
            await each.up.wait()
        await wait_all_tasks_blocked()
        assert (len(dialling.at), home.waiting, dialling.now) == (1, 0, 0)
        assert {each.times for each in waiting} == {1}
        assert {each.link for each in waiting} == {home.links[0]}


@pytest.mark.failure(9)
async def test_a_second_link_only_when_the_first_is_crowded_and_never_a_third(dialling: Dialling) -> None:
    home = pool(needed=True)
    async with running(home):
        dialling.succeeds()
        await until(lambda: home.up)
        for number in range(CROWDED + 50):
            link = home.pick()
            assert link is not None
            link.session.open(encode_open(Open("web"))).observer = Record()
            if number < CROWDED - 1:
                assert len(dialling.at) == 1
        dialling.succeeds()
        await until(lambda: len(home.links) == 2)
        assert home.pick() is home.links[1]
        home.links[0].congested = home.links[1].congested = True
        assert home.pick() is home.links[1]
        await wait_all_tasks_blocked()
        assert (len(dialling.at), dialling.most, home.most) == (2, 1, 2)


# Streams that wait


@pytest.mark.failure(19, 20)
async def test_the_waiting_list_is_bounded(dialling: Dialling) -> None:
    home = pool(limits=ProxyLimits(waiting_streams=3))
    first, *rest = [Waiting() for _ in range(4)]
    assert [home.wait(each) for each in (first, *rest)] == [True, True, True, False]
    home.leave(first)
    home.leave(first)
    assert home.waiting == 2
    assert home.wait(rest[-1])
    async with running(home):
        dialling.succeeds()
        for each in rest:
            await each.up.wait()
    assert first.times == 0, "who has left is not called"


async def test_a_stream_that_finds_no_place_may_wait_again(dialling: Dialling) -> None:
    home = pool()

    class Again(Waiting):
        def link_up(self) -> None:
            super().link_up()
            if self.times < 3:
                assert home.wait(self)

    waiting = Again()
    async with running(home):
        assert home.wait(waiting)
        theirs = dialling.succeeds()
        for times in (1, 2):
            await until(lambda times=times: waiting.times == times)
            theirs.close()
            theirs = dialling.succeeds()
        await until(lambda: waiting.times == 3)
    assert home.waiting == 0


# Links that end


@pytest.mark.failure(6)
@pytest.mark.parametrize("end", [socket.socket.close, reset], ids=["closed", "reset"])
async def test_a_link_that_the_peer_closed_is_not_used_again(
    dialling: Dialling, end: Callable[[socket.socket], None]
) -> None:
    home = pool(needed=True)
    async with running(home):
        theirs = dialling.succeeds()
        await until(lambda: home.up)
        gone = home.links[0]
        end(theirs)
        await gone.ended.wait()
        assert home.pick() is None, "also before the pool has been told"
        waiting = Waiting(home)
        assert home.wait(waiting)
        dialling.succeeds()
        await waiting.up.wait()
        assert waiting.link is not None
        assert waiting.link is not gone
        assert gone.reason is CloseReason.LINK_LOST


@pytest.mark.failure(6)
async def test_a_stream_opened_while_the_end_was_on_its_way_waits_and_is_told(dialling: Dialling) -> None:
    home = pool(needed=True)
    async with running(home):
        theirs = dialling.succeeds()
        await until(lambda: home.up)
        reset(theirs)
        link = home.pick()
        assert link is not None
        link.session.open(encode_open(Open("web"))).observer = observer = Record()
        home._pump.settle()
        await link.ended.wait()
        assert observer.told == []
        dialling.succeeds()
        await until(lambda: home.up)
        assert observer.told == ["resume_timeout"], "the same process, which has no such session"


@pytest.mark.failure(6, 18)
async def test_a_peer_that_resets_right_after_the_handshake(dialling: Dialling) -> None:
    home = pool(needed=True)
    async with running(home):
        reset(dialling.succeeds())
        await until(lambda: home.last_error is not None or home.retry_at is not None)
        dialling.succeeds()
        await until(lambda: home.up)
        assert (home.last_error, len(dialling.at)) == (None, 2)


@pytest.mark.failure(9, 18)
async def test_a_peer_that_says_goodbye_right_after_the_handshake_is_not_dialled_at_once(dialling: Dialling) -> None:
    """Or it would have us shake hands all day."""
    home = pool(needed=True)
    async with running(home):
        for number in range(2):
            theirs = dialling.succeeds()
            await until(lambda: home.up)
            theirs.send(encode(FrameKind.GOAWAY, 0, encode_reason(CloseReason.STOPPED)))
            await until(lambda: not home.links)
            assert home.retry_at is not None
            assert home.retry_at - trio.current_time() > 0.05 * (number + 1), "longer each time"


@pytest.mark.failure(8)
async def test_a_peer_that_leaves_is_dialled_at_once(dialling: Dialling) -> None:
    """Another process may have taken its place; the next call must not be the one that finds no link."""
    home = pool(needed=True)
    async with running(home):
        theirs = dialling.succeeds()
        await until(lambda: home.up)
        await dialling.begins()
        theirs.send(encode(FrameKind.GOAWAY, 0, encode_reason(CloseReason.DRAINING)))
        with trio.fail_after(1):
            await dialling.begins()


@pytest.mark.failure(8)
async def test_while_the_peer_drains_streams_go_elsewhere(dialling: Dialling) -> None:
    home = pool(needed=True)
    async with running(home):
        theirs = dialling.succeeds()
        await until(lambda: home.up)
        draining = home.links[0]
        draining.session.open(encode_open(Open("web"))).observer = observer = Record()
        theirs.send(encode(FrameKind.GOAWAY, 0, encode_reason(CloseReason.DRAINING)))
        await until(lambda: not home.up)
        assert home.pick() is None
        dialling.succeeds()
        await until(lambda: home.up)
        assert home.pick() is home.links[1]
        assert observer.told == [], "the stream that is open goes on"
        assert draining in home.links


@pytest.mark.failure(18, 19)
async def test_a_peer_that_says_goodbye_on_each_link_and_keeps_it(
    dialling: Dialling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.pool.policy.MOST_LEAVING", 3)
    home = pool(needed=True, max_per_peer=2)
    async with running(home):
        for number in range(3):
            theirs = dialling.succeeds()
            await until(lambda number=number: len(home.links) > number)  # type: ignore[misc]
            theirs.send(encode(FrameKind.GOAWAY, 0, encode_reason(CloseReason.DRAINING)))
            await until(lambda: not home.up)
        await wait_all_tasks_blocked()
        assert (len(dialling.at), home.refuses()) == (3, CloseReason.OVERLOADED)
        theirs.close()  # that session waits for its link, and takes no place
        await until(lambda: len(home.links) == 2)
        assert home.refuses() is None


@pytest.mark.failure(8, 10)
async def test_draining_takes_no_links_and_dials_none(dialling: Dialling) -> None:
    home = pool(needed=True)
    async with running(home):
        theirs = dialling.succeeds()
        await until(lambda: home.up)
        assert home.refuses() is None
        home.drain()
        assert home.refuses() is CloseReason.DRAINING
        assert not home.up
        theirs.close()
        await home.links[0].ended.wait()
        await wait_all_tasks_blocked()
        assert len(dialling.at) == 1


@pytest.mark.failure(8, 10)
@pytest.mark.parametrize("dials", [False, True])
async def test_what_waits_when_draining_begins_still_gets_its_link(dialling: Dialling, dials: bool) -> None:
    home = pool()
    async with running(home):
        waiting = Waiting(home)
        assert home.wait(waiting)
        if dials:
            await dialling.begins()
        home.drain()
        dialling.succeeds()
        with trio.fail_after(1):
            await waiting.up.wait()
        assert waiting.link is not None
        assert not home.up, "it takes no more"
        assert len(dialling.at) == 1


@pytest.mark.failure(8, 10)
async def test_a_dial_for_nobody_is_given_up_when_draining_begins(dialling: Dialling) -> None:
    home = pool(needed=True)
    async with running(home):
        await dialling.begins()
        home.drain()
        await until(lambda: dialling.now == 0)
        await wait_all_tasks_blocked()
        assert (len(dialling.at), home.last_error) == (1, None)


@pytest.mark.failure(1)
async def test_cancelled_it_ends_its_links_and_leaves_nothing(dialling: Dialling) -> None:
    before = open_fds()
    home = pool(needed=True)
    async with running(home):
        theirs = dialling.succeeds()
        await until(lambda: home.up)
        link = home.links[0]
    assert (link.reason, home.links) == (CloseReason.STOPPED, [])
    theirs.setblocking(True)
    goodbye = theirs.recv(100)
    assert goodbye.endswith(encode(FrameKind.GOAWAY, 0, encode_reason(CloseReason.STOPPED)))
    theirs.close()
    assert not fds_since(before)


# Two hosts


@pytest.mark.failure(9)
@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_both_dial_at_once_and_the_limit_is_kept(limit: int) -> None:
    async with two_hosts(max_per_peer=limit) as (a, b):
        await until(lambda: a.up and b.up and not a.dialling and not b.dialling)
        await until(lambda: len(a.links) == len(b.links))
        assert max(a.most, b.most) <= min(2, limit)
        waiting = [Waiting(home) for home in (a, b)]
        for home, each in zip((a, b), waiting, strict=True):
            link = home.pick()
            assert link is not None
            link.session.open(encode_open(Open("web"))).observer = Record()
            assert each.times == 0
        assert {link.local_address for link in a.links} == {link.remote_address for link in b.links}


@pytest.mark.parametrize("mtls", [False, True])
async def test_a_link_that_the_peer_dialled_serves_both_directions(mtls: bool) -> None:
    async with two_hosts(needed=(False, True), mtls=mtls) as (a, b):
        waiting = Waiting(a)
        await until(lambda: a.up and b.up)
        assert (a.dials, b.dials) == (0, 1)
        assert a.pick() is a.links[0]
        assert a.wait(waiting)
        await wait_all_tasks_blocked()
        assert (a.links[0].dialled, b.links[0].dialled) == (False, True)
        assert f"{a.met_at}" in a.links[0].remote_address
        assert f"{b.met_at}" in b.links[0].remote_address
        a.links[0].session.open(encode_open(Open("web"))).observer = Record()
        a._pump.settle()
        await until(lambda: len(b.sessions._calls.lanes) == 1)  # type: ignore[attr-defined]


@pytest.mark.failure(6)
@pytest.mark.parametrize("mtls", [False, True])
async def test_after_a_lost_link_there_is_another_one(mtls: bool) -> None:
    async with two_hosts(max_per_peer=1, mtls=mtls) as (a, b):
        await until(lambda: a.up and b.up and not a.dialling and not b.dialling)
        link = a.links[0]
        link.doom(CloseReason.PROTOCOL_ERROR, "a test")
        a._pump.settle()
        await until(lambda: a.up and b.up and a.links[0] is not link)
        assert max(a.most, b.most) == 1


@pytest.mark.failure(11)
async def test_a_certificate_that_is_revoked_between_its_handshake_and_the_link() -> None:
    """The cut has passed the pool by then; the link must not come up behind it."""
    ca = CertificateAuthority()
    ours, theirs = of_host(ca, "host-a"), of_host(ca, "host-b")
    home = pool(credentials=ours)
    async with running(home):
        mine, other = tcp_pair()
        with other:
            ours.revoked.adopt([theirs.serial])
            hello = Hello(host="host-b", to="host-a", instance="2", session="1", stream_credit=65536, max_streams=10)
            with capture_logs() as logs:
                await home.attend(mine, HandshakeResult(mine, hello, b"", None, theirs.serial), False)
            assert [entry["event"] for entry in logs] == ["link lost at once"]
            assert home.links == []
            assert mine.fileno() == -1
