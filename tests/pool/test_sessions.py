"""Sessions that lose their links between two pools, or between a pool and a peer that the test plays."""

from __future__ import annotations

import socket

import msgspec
import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import wait_all_tasks_blocked

from control.base.reading.addresses import TcpAddress
from proxy.errors import CloseReason, HandshakeError
from proxy.links.carry import HandshakeResult
from proxy.links.handshake import Hello, resuming, without
from proxy.mux.frames import FrameKind, Open, encode, encode_open, encode_reason
from proxy.mux.session import SessionSettings
from proxy.pool.sessions import PoolSessions
from proxy.pump.lane import Lane
from proxy.pump.session import LaneSession
from tests.links.wire import Relay, tcp_pair
from tests.pool.hosts import Dialling, Record, Recording, Waiting, hello, observed, pool, running, two_hosts, until

pytestmark = pytest.mark.failure(7)


def calls(home: Recording) -> list[Lane]:
    return home.sessions._calls.lanes  # type: ignore[attr-defined, no-any-return]


def lose(home: Recording) -> None:
    """The TCP connection under the first link breaks for both sides."""
    home.links[0]._sock.shutdown(socket.SHUT_RDWR)


def lose_here(home: Recording) -> socket.socket:
    """Only this side notices; the caller closes what it gets."""
    kept = home.links[0]._sock.dup()
    home.links[0].doom(CloseReason.LINK_LOST, "cut")
    home._pump.settle()
    return kept


def answer(lane: Lane) -> None:
    lane.session.accept(lane)
    lane.session.pump.settle()


# Two hosts


@pytest.mark.parametrize("mtls", [False, True])
async def test_a_stream_goes_on_over_another_link(mtls: bool) -> None:
    with capture_logs() as logs:
        async with two_hosts(needed=(True, False), mtls=mtls) as (a, b):
            await until(lambda: a.up and b.up)
            observer = observed(a)
            await until(lambda: len(calls(b)) == 1)
            for number in range(3):
                before = a.links[0], b.links[0]
                lose(b if number else a)
                await until(lambda before=before: a.up and b.up and (a.links[0], b.links[0]) != before)  # type: ignore[misc]
                await until(lambda before=before: a.links[0] is not before[0] and b.links[0] is not before[1])  # type: ignore[misc]
                assert calls(b)[0].session.link is b.links[0]
            answer(calls(b)[0])
            await until(lambda: observer.told == ["opened"])
            assert (a.sessions.resumed, b.sessions.resumed, a.streams, b.streams) == (3, 3, 1, 1)
            assert max(a.most, b.most) == 1
            assert (a.links[0].name, b.links[0].name) == ("host-b/1", "host-a/1"), "it is the same session"
    ups = [entry["resumed"] for entry in logs if entry["event"] == "link up" and entry["peer"] == "host-b"]
    assert ups == [0, 1, 2, 3]
    down = next(entry for entry in logs if entry["event"] == "link down")
    assert (down["reason"], down["streams"], down["suspended"]) == ("link_lost", 0, 1)


async def test_the_side_that_was_dialled_does_not_dial() -> None:
    async with two_hosts(needed=(False, True), max_per_peer=1) as (a, b):
        await until(lambda: a.up and b.up)
        observer = observed(a)
        await until(lambda: len(calls(b)) == 1)
        lose(a)
        await until(lambda: a.sessions.resumed == b.sessions.resumed == 1)
        assert (a.dials, b.dials) == (0, 2)
        assert observer.told == []


@pytest.mark.failure(6)
@pytest.mark.parametrize("mtls", [False, True])
async def test_a_link_that_only_one_side_has_lost(mtls: bool) -> None:
    """The other one takes the dead link down when its session comes back on another."""
    async with two_hosts(needed=(True, False), max_per_peer=1, mtls=mtls) as (a, b):
        await until(lambda: a.up and b.up)
        observer = observed(a)
        await until(lambda: len(calls(b)) == 1)
        dead = b.links[0]
        kept = lose_here(a)
        try:
            await until(lambda: a.sessions.resumed == b.sessions.resumed == 1)
        finally:
            kept.close()
        assert (dead.reason, dead.detail) == (CloseReason.LINK_LOST, "the peer goes on over another link")
        await until(lambda: len(b.links) == 1)
        answer(calls(b)[0])
        await until(lambda: observer.told == ["opened"])


async def test_a_link_that_only_the_dialled_side_has_lost_ends_when_the_dialler_notices() -> None:
    async with two_hosts(needed=(True, False), ping_interval=0.05, ping_timeout=0.05) as (a, b):
        await until(lambda: a.up and b.up)
        observer = observed(a)
        await until(lambda: len(calls(b)) == 1)
        first = a.links[0]
        kept = lose_here(b)
        try:
            await until(lambda: b.sessions.resumed > 0)
        finally:
            kept.close()
        assert first.reason is CloseReason.PEER_TIMEOUT
        assert observer.told == []


def restart(home: Recording) -> None:
    """As if the process had been started afresh: it knows no session and has another instance."""
    old = home._hello

    def fresh(peer: str, session: str) -> Hello:
        return msgspec.structs.replace(old(peer, session), instance="another")

    home._hello = fresh
    for session in home.sessions:
        session.end(CloseReason.STOPPED)
    home._pump.settle()


async def test_a_peer_that_was_restarted_is_found_by_the_dial() -> None:
    """At once, and the same handshake is good for a new session."""
    async with two_hosts(needed=(True, False)) as (a, b):
        await until(lambda: a.up and b.up)
        observer = observed(a)
        await until(lambda: len(calls(b)) == 1)
        link = a.links[0]
        kept = lose_here(b)
        restart(b)
        kept.close()
        await until(lambda: observer.told == ["peer_restarted"])
        await until(lambda: a.up and b.up)
        assert a.dials == 2
        assert (link.session.detail, a.sessions.resumed) == ("the peer does not know it", 0)
        observed(a)
        await until(lambda: len(calls(b)) == 2)
        await wait_all_tasks_blocked()
        assert not a.sessions.gone, "its id is that of the new session now"


# With a peer that the test plays


def made(*, dialled: bool = True, instance: str = "2", key: str = "s") -> tuple[PoolSessions, LaneSession]:
    """The sessions of a pool, and one of them with a stream, which waits for a link."""
    home = pool(resume_timeout=30)
    theirs = Hello(host="host-b", to="host-a", instance=instance, session=key, stream_credit=65536, max_streams=9)
    session = home.sessions.begin(theirs, hello("host-a", 9, "host-b", key), dialled)
    session.suspend()
    home.sessions.add(session)
    return home.sessions, session


def says(session: LaneSession, received: int = 0, instance: str = "2") -> Hello:
    theirs = Hello(
        host="host-b", to="host-a", instance=instance, session=session.key, stream_credit=65536, max_streams=9
    )
    return resuming(theirs, received)


def test_an_answer_that_goes_on() -> None:
    sessions, session = made()
    assert sessions.to_dial() is session
    assert sessions.answered_untrusted(session, says(session)) is session
    assert not session.over


@pytest.mark.parametrize(("instance", "reason"), [("2", CloseReason.RESUME_TIMEOUT), ("3", CloseReason.PEER_RESTARTED)])
def test_an_answer_of_a_peer_that_knows_nothing(instance: str, reason: CloseReason) -> None:
    sessions, session = made()
    fresh = msgspec.structs.replace(says(session, instance=instance), resumes=False)
    assert sessions.answered_untrusted(session, fresh) is None
    assert session.over
    assert session.reason is reason
    assert session.awake.is_set()
    assert list(sessions) == []


@pytest.mark.parametrize(
    ("received", "instance", "complaint"),
    [
        (1, "2", "resuming at offset 1, but 0 to 0 are kept"),
        (0, "3", "the peer goes on with a session of another process"),
    ],
)
def test_an_answer_that_lies_ends_the_session(received: int, instance: str, complaint: str) -> None:
    sessions, session = made()
    with pytest.raises(HandshakeError, match=complaint) as caught:
        sessions.answered_untrusted(session, says(session, received, instance))
    assert caught.value.reason is CloseReason.PROTOCOL_ERROR
    assert (session.over, session.reason, session.detail) == (True, CloseReason.PROTOCOL_ERROR, complaint)


def test_an_answer_that_comes_too_late() -> None:
    sessions, session = made()
    session.end(CloseReason.RESUME_TIMEOUT)
    with pytest.raises(HandshakeError, match="ended meanwhile") as caught:
        sessions.answered_untrusted(session, says(session))
    assert caught.value.reason is CloseReason.RESUME_TIMEOUT


def test_a_dialler_that_goes_on() -> None:
    sessions, session = made(dialled=False)
    assert sessions.to_dial() is None
    assert sessions.asked_untrusted(says(session)) is session
    assert not session.over


def test_a_dialler_that_lies_ends_its_session() -> None:
    sessions, session = made(dialled=False)
    session.received = 16
    with pytest.raises(HandshakeError, match="resuming at offset 99, but 0 to 0 are kept"):
        sessions.asked_untrusted(says(session, 99))
    assert session.reason is CloseReason.PROTOCOL_ERROR


@pytest.mark.failure(11)
def test_a_session_is_only_for_the_process_that_dialled_it() -> None:
    for dialled, instance in ((True, "2"), (False, "3")):
        sessions, session = made(dialled=dialled)
        with pytest.raises(HandshakeError, match="id of another session"):
            sessions.asked_untrusted(says(session, instance=instance))
        assert session.suspended
    sessions, session = made(dialled=False)
    with pytest.raises(HandshakeError, match="id of another session"):
        sessions.asked_untrusted(msgspec.structs.replace(says(session), resumes=False))


def test_a_session_that_is_not_known_begins_afresh() -> None:
    sessions, session = made(dialled=False)
    unknown = msgspec.structs.replace(says(session, 5), session="x")
    assert sessions.asked_untrusted(unknown) is None
    assert session.suspended


@pytest.mark.parametrize("dialled", [True, False])
def test_another_process_of_the_peer_shows_that_the_old_one_is_gone(dialled: bool) -> None:
    sessions, session = made(dialled=dialled)
    fresh = msgspec.structs.replace(says(session, instance="3"), session="x", resumes=False)
    assert sessions.asked_untrusted(fresh) is None
    assert session.over
    assert session.reason is CloseReason.PEER_RESTARTED


def test_two_processes_side_by_side_while_the_old_one_leaves() -> None:
    """A session that is up stays, and so does one that is leaving."""
    for spared in ("leaving", "up"):
        sessions, session = made(dialled=False)
        session.peer_leaves = session.going_away = spared == "leaving"
        session.suspended = spared != "up"
        fresh = msgspec.structs.replace(says(session, instance="3"), session="x", resumes=False)
        assert sessions.asked_untrusted(fresh) is None
        assert not session.over


@pytest.mark.failure("24")
@pytest.mark.parametrize("dialled", [True, False])
def test_a_process_that_the_new_one_names_is_still_there(dialled: bool) -> None:
    """Its GOAWAY was lost with the link."""
    sessions, session = made(dialled=dialled)
    fresh = msgspec.structs.replace(says(session, instance="3"), session="x", resumes=False, beside=("1", "2"))
    assert sessions.asked_untrusted(fresh) is None
    assert not session.over
    assert sessions.asked_untrusted(msgspec.structs.replace(fresh, session="y", beside=("1",))) is None
    assert session.reason is CloseReason.PEER_RESTARTED


@pytest.mark.failure("24")
def test_an_old_process_that_wants_to_go_on_does_not_show_that_the_new_one_is_gone() -> None:
    sessions, session = made(dialled=False)
    late = msgspec.structs.replace(says(session, instance="1"), session="x")
    assert late.resumes
    assert sessions.asked_untrusted(late) is None
    assert not session.over


def test_what_counts_as_one_of_the_links() -> None:
    sessions, session = made(dialled=False)
    assert sessions.count() == 0, "its dialler may not even know of it"
    session.received = 16
    assert (sessions.count(), sessions.count(dialled=True), sessions.count(dialled=False)) == (1, 0, 1)
    session.going_away = True
    assert sessions.count() == 0


@pytest.mark.failure(19)
async def test_sessions_that_leave_and_wait_are_bounded() -> None:
    home = pool(max_per_peer=2, resume_timeout=3600)
    theirs = Hello(host="host-b", to="host-a", instance="2", session="", stream_credit=65536, max_streams=9)
    made = []
    async with running(home) as nursery:
        for number in range(5):
            ours, peer = tcp_pair()
            said = msgspec.structs.replace(theirs, session=str(number))
            nursery.start_soon(home.attend, ours, HandshakeResult(ours, said, b""), False)
            await until(lambda: home.up)
            made.append(home.links[0].session)
            peer.send(encode(FrameKind.GOAWAY, 0, encode_reason(CloseReason.DRAINING)))
            peer.close()
            await until(lambda: not home.links)
        assert [session.over for session in made] == [True, True, True, False, False]
        assert {session.reason for session in made[:3]} == {CloseReason.LINK_LOST}
        assert home.refuses() is None


@pytest.mark.failure(7, 9)
async def test_dials_that_the_peer_took_for_failed_do_not_shut_it_out() -> None:
    """Our HELLO was lost on its way, or the dial was given up meanwhile: nobody will ever go on with these sessions."""
    home = pool(max_per_peer=2, resume_timeout=3600)
    theirs = Hello(host="host-b", to="host-a", instance="2", session="", stream_credit=65536, max_streams=9)
    made = []
    async with running(home) as nursery:
        for number in range(4):
            assert home.refuses() is None
            ours, peer = tcp_pair()
            said = msgspec.structs.replace(theirs, session=str(number))
            nursery.start_soon(home.attend, ours, HandshakeResult(ours, said, b""), False)
            await until(lambda: home.up)
            made.append(home.links[0].session)
            if not number:
                observed(home)
            peer.close()
            await until(lambda: not home.links)
        assert [session.over for session in made] == [False, True, True, False], "one with a stream goes last"
        assert home.resumes(resuming(msgspec.structs.replace(theirs, session="3"), 0)) == 0


async def test_streams_wait_for_the_session_or_take_another_link(dialling: Dialling) -> None:
    home = pool(needed=True, max_per_peer=2)
    async with running(home):
        theirs = dialling.succeeds()
        await until(lambda: home.up)
        observed(home)
        theirs.close()
        await until(lambda: not home.links)
        assert home.pick() is None
        waiting = Waiting(home)
        assert home.wait(waiting)
        await until(lambda: home.dialling)
        assert len(dialling.at) == 2, "one dial, for the session"
        dialling.succeeds()
        await waiting.up.wait()
        assert waiting.link is home.links[0]
        assert dialling.most == 1


@pytest.mark.failure(6)
async def test_whoever_waits_for_a_session_that_the_peer_dials_for_gets_a_link_all_the_same(dialling: Dialling) -> None:
    """The peer may have been restarted and not know of it. Without anybody who waits, nothing is dialled."""
    home = pool(needed=True, max_per_peer=1)
    ours, theirs = tcp_pair()
    said = Hello(host="host-b", to="host-a", instance="old", session="s", stream_credit=65536, max_streams=9)
    async with running(home) as nursery:
        await dialling.begins()
        dialling.fails(HandshakeError("the peer refused: duplicate", CloseReason.DUPLICATE))
        nursery.start_soon(home.attend, ours, HandshakeResult(ours, said, b""), False)
        await until(lambda: home.up)
        observer = observed(home)
        theirs.send(encode(FrameKind.PING, 0, bytes(8)))
        await until(lambda: home.links[0].session.received > 0)
        theirs.close()
        await until(lambda: not home.links)
        await wait_all_tasks_blocked()
        assert len(dialling.at) == 1
        waiting = Waiting(home)
        assert home.wait(waiting)
        dialling.succeeds()
        await waiting.up.wait()
        assert observer.told == ["peer_restarted"], "the peer's answer came from another process"


@pytest.mark.failure(9)
async def test_a_session_that_waits_takes_a_place() -> None:
    home = pool(max_per_peer=1)
    ours, theirs = tcp_pair()
    said = Hello(host="host-b", to="host-a", instance="2", session="s", stream_credit=65536, max_streams=9)
    async with running(home) as nursery:
        nursery.start_soon(home.attend, ours, HandshakeResult(ours, said, b""), False)
        await until(lambda: home.up)
        observed(home)
        theirs.send(encode(FrameKind.PING, 0, bytes(8)))
        await until(lambda: home.links[0].session.received > 0)
        theirs.close()
        await until(lambda: not home.links)
        assert home.refuses() is CloseReason.DUPLICATE
        assert home.resumes(resuming(said, 0)) == 16
        home.sessions._all["s"].end(CloseReason.LINK_LOST)
        assert home.refuses() is None


@pytest.mark.failure(11)
async def test_a_session_that_waits_ends_when_its_peers_certificate_is_revoked(dialling: Dialling) -> None:
    home = pool(needed=True)
    async with running(home):
        theirs = dialling.succeeds()
        await until(lambda: home.up)
        home.links[0].serial = "ab"
        observer = observed(home)
        theirs.close()
        await until(lambda: not home.links)
        home.cut(["cd"])
        assert observer.told == []
        home.cut(["ab"])
        assert observer.told == ["revoked"]


@pytest.mark.failure(10)
@pytest.mark.failure(7, 9)
async def test_a_session_that_the_dialler_has_given_up_takes_no_place_at_the_other_side() -> None:
    """The other side would wait for it for longer, and refuse the next link as one too many for so long."""
    async with two_hosts(needed=(True, False), max_per_peer=1) as (a, b):
        await until(lambda: a.up and b.up)
        observer = observed(a)
        await until(lambda: len(calls(b)) == 1)
        config, there = a._config, a.peer
        impatient = msgspec.structs.replace(config, links=msgspec.structs.replace(config.links, resume_timeout=0.05))
        a.adopt(impatient, msgspec.structs.replace(there, address=TcpAddress("127.0.0.1", 1)), True)
        lose(a)
        await until(lambda: observer.told == ["resume_timeout"])
        [session] = b.sessions.suspended
        a.adopt(config, there, True)
        await until(lambda: a.up and b.up)
        assert (session.reason, session.detail) == (CloseReason.RESUME_TIMEOUT, "the peer has given it up")
        assert not a.sessions.gone


@pytest.mark.parametrize(
    ("dialled", "instance", "ends"), [(False, "2", True), (False, "3", False), (True, "2", False)], ids=str
)
def test_a_dialler_gives_up_only_what_is_its_own(dialled: bool, instance: str, ends: bool) -> None:
    sessions, session = made(dialled=dialled)
    asked = msgspec.structs.replace(says(session, instance=instance), session="x", resumes=False)
    told = without(asked, {"s": True, "?": True})
    session.peer_leaves = True  # or another process of the peer would end it
    assert sessions.asked_untrusted(told) is None
    assert session.over is ends


@pytest.mark.failure("21c")
@pytest.mark.parametrize("up", [False, True])
async def test_a_session_of_which_its_dialler_never_heard(up: bool) -> None:
    """This side may not even have noticed that the link is dead."""
    home = pool(resume_timeout=30)
    theirs = Hello(host="host-b", to="host-a", instance="2", session="s", stream_credit=65536, max_streams=9)
    session = home.sessions.begin(theirs, hello("host-a", 9, "host-b", "s"), False)
    ours, other = tcp_pair()
    link = home.sessions.put(ours, HandshakeResult(ours, theirs, b""), session)
    with other:
        link.start(b"")
        lane = session.open(encode_open(Open("web")))
        observer = lane.observer = Record()
        lane.early = b"early"
        if not up:
            link.doom(CloseReason.LINK_LOST)
            home._pump.settle()
        told = without(msgspec.structs.replace(theirs, session="t"), {"s": False})
        assert home.sessions.asked_untrusted(told) is None
        assert (session.over, session.reason, session.lost_streams) == (True, CloseReason.LINK_LOST, 0)
        assert session.detail == "the peer has never heard of it"
        assert (link.ended.is_set(), link.reason) == (True, CloseReason.LINK_LOST)
        assert observer.told == ["unheard"]
    home._pump.shut_down()


@pytest.mark.failure("21c")
@pytest.mark.parametrize(("dialled", "instance"), [(True, "2"), (False, "3")])
def test_nobody_else_can_say_that_of_a_session(dialled: bool, instance: str) -> None:
    sessions, session = made(dialled=dialled)
    session.peer_leaves = True  # or another process of the peer would end it
    other = msgspec.structs.replace(says(session, instance=instance), session="x", resumes=False)
    assert sessions.asked_untrusted(without(other, {"s": False})) is None
    assert session.suspended


@pytest.mark.failure("21c")
async def test_an_acceptor_that_lost_the_connection_behind_its_answer() -> None:
    """It says so when the dialler wants to go on, and no other word of it."""
    sessions, session = made()
    here = pool(name="host-a", own="host-b").sessions
    here.note_unbegun("s")
    asked = says(session)
    assert here.absent(msgspec.structs.replace(asked, session="x")) == {}
    answered = without(msgspec.structs.replace(asked, resumes=False), here.absent(asked))
    observer = session.open(encode_open(Open("web"))).observer = Record()
    session.streams[1].early = b""
    assert sessions.answered_untrusted(session, answered) is None
    assert (session.over, session.reason, observer.told) == (True, CloseReason.LINK_LOST, ["unheard"])


@pytest.mark.failure("21c")
async def test_a_dialler_that_means_a_session_with_an_earlier_process() -> None:
    """The answer of this one, which knew none, was lost: it has begun one under the same id."""
    sessions, session = made(dialled=False)
    observer = session.open(encode_open(Open("web"))).observer = Record()
    session.streams[2].early = b""
    assert sessions.asked_untrusted(says(session, 5000)) is None
    assert (session.over, session.reason, observer.told) == (True, CloseReason.LINK_LOST, ["unheard"])


@pytest.mark.failure("21c")
async def test_a_dial_that_is_given_up_behind_hello_is_told_with_the_next() -> None:
    """Also where a link is up already, over which nobody dials again."""
    async with two_hosts(needed=(False, False), dial_timeout=1.0) as (a, b):
        async with Relay(a.peer.address).running() as relay:
            relay.deaf = True
            there = a.peer
            a.adopt(a._config, msgspec.structs.replace(there, address=relay.address), True)
            await until(lambda: b.up)
            [session] = b.sessions
            relay.mute = True  # the GOAWAY is lost, too
            observer = observed(b)
            session.streams[2].early = b""
            await until(lambda: a.last_error is not None)
            assert (next(iter(a.sessions.gone.values())), a.sessions.untold) == (False, True)
            b.links[0].doom(CloseReason.LINK_LOST, "cut")
            b._pump.settle()
            await until(lambda: b.up)
            a.adopt(a._config, there, True)
            await until(lambda: observer.told == ["unheard"])
            assert session.over
            await until(lambda: not a.sessions.untold)


@pytest.mark.failure("21c")
async def test_a_refusal_tells_nothing_and_is_told_of_nothing() -> None:
    async with two_hosts(needed=(False, False)) as (a, b):
        b.drain()
        a.adopt(a._config, a.peer, True)
        await until(lambda: a.last_error is not None)
        assert (a.sessions.gone, a.sessions.untold) == ({}, False)


async def test_whoever_answers_tells_what_he_has_given_up() -> None:
    """A link that the other side dials does as well: nobody may ever dial from here again."""
    async with two_hosts(needed=(True, False), max_per_peer=2) as (a, b):
        await until(lambda: a.up and b.up)
        observer = observed(a)
        await until(lambda: len(calls(b)) == 1 and a.links[0].session.received > 0)
        nowhere = msgspec.structs.replace(a.peer, address=TcpAddress("127.0.0.1", 1))
        a.adopt(a._config, nowhere, False)
        lose(a)
        await until(lambda: len(b.sessions.suspended) == 1 and len(a.sessions.suspended) == 1)
        a.sessions.suspended[0].end(CloseReason.PEER_GONE)
        a._pump.settle()
        assert observer.told == ["peer_gone"]
        await until(lambda: bool(a.sessions.gone))
        [session] = b.sessions.suspended
        b.invite()
        await until(lambda: session.over)
        assert (session.reason, session.detail) == (CloseReason.RESUME_TIMEOUT, "the peer has given it up")
        await until(lambda: a.up and b.up)
        assert a.sessions.gone, "whether the answer has arrived is not known here"


async def test_a_host_that_drains_still_dials_for_its_sessions() -> None:
    async with two_hosts(needed=(True, False)) as (a, b):
        await until(lambda: a.up and b.up)
        observer = observed(a)
        await until(lambda: len(calls(b)) == 1)
        a.drain()
        b.drain()
        lose(a)
        await until(lambda: a.sessions.resumed == b.sessions.resumed == 1)
        answer(calls(b)[0])
        await until(lambda: observer.told == ["opened"])
        assert not a.up


@pytest.mark.failure(1)
async def test_cancelled_while_a_session_waits(dialling: Dialling) -> None:
    home = pool(needed=True)
    async with running(home):
        theirs = dialling.succeeds()
        await until(lambda: home.up)
        observer = observed(home)
        theirs.close()
        await until(lambda: not home.links)
        await wait_all_tasks_blocked()
    assert observer.told == ["stopped"]
    assert list(home.sessions) == []
    assert home._pump.slabs.in_use == 0


@pytest.mark.parametrize("reason", [CloseReason.DUPLICATE, CloseReason.DRAINING])
async def test_a_peer_that_refuses_knows_no_such_session(dialling: Dialling, reason: CloseReason) -> None:
    home = pool(needed=True)
    async with running(home):
        theirs = dialling.succeeds()
        await until(lambda: home.up)
        observer = observed(home)
        theirs.close()
        dialling.fails(HandshakeError("the peer refused", reason))
        await until(lambda: observer.told == ["peer_restarted"])


async def test_a_peer_that_says_goodbye_is_gone(dialling: Dialling) -> None:
    home = pool(needed=True)
    async with running(home):
        theirs = dialling.succeeds()
        await until(lambda: home.up)
        observer = observed(home)
        theirs.send(encode(FrameKind.GOAWAY, 0, encode_reason(CloseReason.STOPPED)))
        theirs.close()
        await until(lambda: observer.told == ["stopped"])
        assert list(home.sessions) == []


@pytest.mark.parametrize("resumed", [True, False])
async def test_its_end_is_one_line(resumed: bool) -> None:
    """With a link, the link's own says it."""
    sessions, session = made()
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sessions.outlive, session)
            await wait_all_tasks_blocked()
            session.resumed += resumed
            session.awake.set()
            session.end(CloseReason.STOPPED)
    assert [entry["event"] for entry in logs] == ([] if resumed else ["session ended"])
    assert list(sessions._all) == []


def test_settings_are_those_of_the_first_hello() -> None:
    _, session = made()
    assert (session.remote, session.local) == (SessionSettings(65536, 9), SessionSettings(65536, 9))
