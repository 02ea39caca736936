"""Being known to the control plane."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from control.api.client import Denied
from control.api.mesh import MOST_TOLD_BYTES, HostRecord, Namesake, ServiceOffer, ToldProblem
from control.api.messages import EdgeInfo, Edges
from proxy.mesh.registration import SOONEST, HostRegistrar, at_most
from proxy.mesh.statelock import StateLock
from tests.mesh.plane import Plane, eventually


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as entries:
        yield entries


class Host:
    def __init__(self, plane: Plane) -> None:
        self.record = HostRecord(
            name="host-a", address="10.0.0.1:7600", instance="i1", services=(ServiceOffer(name="web"),)
        )
        self.forgotten = 0
        self.displaced: list[bool] = []
        state = StateLock("/nowhere")
        state.secret = "s3cret"
        self.registration = HostRegistrar(
            plane, lambda: self.record, self.forget, lambda: 0.5, state=state, displaced=self.displaced.append
        )

    def forget(self) -> None:
        self.forgotten += 1


@asynccontextmanager
async def running(plane: Plane) -> AsyncIterator[Host]:
    async with trio.open_nursery() as nursery:
        host = Host(plane)
        nursery.start_soon(host.registration.run)
        yield host
        nursery.cancel_scope.cancel()


async def test_it_registers_and_says_that_it_is_there(autojump_clock: MockClock) -> None:
    plane = Plane()
    async with running(plane) as host:
        assert await plane.asked("register") == ("register", host.record)
        began = trio.current_time()
        assert await plane.asked("alive", 10) == ("alive", "host-a", "i1")
        assert plane.count("register") == 1
        assert 9 * plane.lease / 4 <= trio.current_time() - began <= 10 * plane.lease / 3


async def test_news_does_not_wait_for_the_usual_time(autojump_clock: MockClock) -> None:
    plane = Plane()
    async with running(plane) as host:
        await plane.asked("register")
        began = trio.current_time()
        host.registration.tell()
        await plane.asked("alive")
        assert trio.current_time() == began, "nothing has been told yet"
        host.registration.tell()
        host.registration.tell()
        await plane.asked("alive", 2)
        assert trio.current_time() == began + SOONEST
        await trio.sleep(SOONEST * 1.1)
        host.registration.tell()
        await plane.asked("alive", 3)
        assert trio.current_time() == began + SOONEST * 2.1
        await plane.asked("alive", 4)
        assert plane.lease / 4 <= trio.current_time() - began - SOONEST * 2.1 <= plane.lease / 3


async def test_news_that_comes_while_it_is_being_said(autojump_clock: MockClock) -> None:
    plane = Plane()
    async with running(plane) as host:

        async def problems() -> tuple[ToldProblem, ...]:
            if plane.count("alive") == 0:
                host.registration.tell()
            return ()

        host.registration.problems = problems
        await plane.asked("alive")
        began = trio.current_time()
        await plane.asked("alive", 2)
        assert trio.current_time() == began + SOONEST
        await plane.asked("alive", 3)
        assert trio.current_time() >= began + SOONEST + plane.lease / 4


async def test_with_that_it_tells_of_its_edges(autojump_clock: MockClock) -> None:
    plane = Plane()
    async with running(plane) as host:

        async def edges() -> Edges:
            return Edges(edges=[some_edge("shop")])

        host.registration.edges = edges
        await plane.asked("alive")
        assert plane.edges == (some_edge("shop"),)
        assert plane.problems == ()


async def test_and_of_what_is_wrong_and_both_have_room(autojump_clock: MockClock) -> None:
    plane = Plane()
    wrong = [ToldProblem(kind="host", name=f"host-{number}", text="x" * 300, lasts_s=1.0) for number in range(30)]
    async with running(plane) as host:

        async def edges() -> Edges:
            return Edges(edges=[some_edge("x" * 200)] * 60)

        async def problems() -> list[ToldProblem]:
            return wrong

        host.registration.edges, host.registration.problems = edges, problems
        await plane.asked("alive")
        assert plane.problems == tuple(wrong[: len(plane.problems)])
        assert 10 < len(plane.problems) <= 20
        assert plane.edges
        assert len(msgspec.json.encode((plane.edges, plane.problems))) <= MOST_TOLD_BYTES + 10


@pytest.mark.failure("30")
@pytest.mark.parametrize("ahead", [13 * 3600.0, -90.0])
async def test_a_clock_that_is_another_than_the_servers(
    autojump_clock: MockClock, logs: list[MutableMapping[str, Any]], ahead: float
) -> None:
    """Said when it begins and when it has ended; a server of an earlier version says nothing of it."""

    def said() -> list[Any]:
        return [(each["event"], each.get("ahead_s")) for each in logs if "clock" in each["event"]]

    plane = Plane()
    async with running(plane) as host:
        host.registration._now = lambda: 1e9
        await plane.asked("alive")
        assert host.registration.clock_ahead is None
        plane.now = 1e9 - ahead
        await eventually(lambda: host.registration.clock_ahead == ahead, "it is known")
        await plane.asked("alive", plane.count("alive") + 2)
        assert said() == [("this host's clock and the control server's differ", round(ahead))]
        plane.now = 1e9 - 1
        await eventually(lambda: host.registration.clock_ahead == 1, "it was set")
        assert said()[1:] == [("this host's clock and the control server's agree again", None)]


async def test_another_offer_is_told_at_once(autojump_clock: MockClock) -> None:
    plane = Plane()
    async with running(plane) as host:
        await plane.asked("register")
        began = trio.current_time()
        host.registration.renew()
        host.record = HostRecord(name="host-a", address="10.0.0.1:7600", instance="i1")
        assert await plane.asked("register", 2) == ("register", host.record)
        assert trio.current_time() == began
        host.registration.renew()
        await plane.asked("alive")
        assert plane.count("register") == 2, "nothing had changed"


async def test_another_offer_that_nobody_hears_is_told_later(autojump_clock: MockClock) -> None:
    plane = Plane()
    async with running(plane) as host:
        await eventually(lambda: host.registration.registered, "registered")
        plane.down = True
        host.record = HostRecord(name="host-a", address="10.0.0.1:7600", instance="i1")
        host.registration.renew()
        await plane.asked("register", 3)
        plane.down = False
        count = plane.count("register")
        assert (await plane.asked("register", count + 1))[1] == host.record
        await eventually(lambda: host.registration.registered, "registered")


@pytest.mark.failure(11)
async def test_when_nobody_knows_it_any_more(autojump_clock: MockClock) -> None:
    plane = Plane()
    async with running(plane) as host:
        await plane.asked("register")
        plane.denied["alive"] = Denied("unknown_host", "host-a is not registered", 404)
        await plane.asked("alive")
        del plane.denied["alive"]
        await plane.asked("register", 2)
        await plane.asked("alive", 2)
        assert host.forgotten == 1


async def test_when_the_map_has_it_no_longer(autojump_clock: MockClock) -> None:
    plane = Plane()
    async with running(plane) as host:
        host.registration.seen("one", False)
        await plane.asked("register")
        await eventually(lambda: host.registration.registered, "registered")
        host.registration.seen("one", True)
        host.registration.seen("one", False)
        await plane.asked("register", 2)
        plane.epoch = "two"
        await eventually(lambda: host.registration.registered, "registered")
        host.registration.seen("two", True)
        await plane.asked("register", 3)
        await eventually(lambda: host.registration.registered, "registered")
        host.registration.seen("two", True)
        await plane.asked("alive")
        assert plane.count("register") == 3


async def test_it_goes_on_trying(autojump_clock: MockClock, logs: list[MutableMapping[str, Any]]) -> None:
    plane = Plane()
    plane.down = True
    async with running(plane) as host:
        await plane.asked("register", 20)
        assert host.registration.registered is None
        assert host.registration.last_error == "no control server answers: plane: connection refused"
        warnings = [entry for entry in logs if entry["log_level"] == "warning"]
        assert [entry["event"] for entry in warnings] == ["not registered"], "said once"
        plane.down = False
        plane.denied["register"] = Denied("taken", "host-b has the address 10.0.0.1:7600", 409)
        await plane.asked("register", 22)
        assert host.registration.last_error == "host-b has the address 10.0.0.1:7600"
        plane.denied.clear()
        await plane.asked("alive")
        assert host.registration.last_error is None
        plane.down = True
        await plane.asked("alive", 3)
        assert host.registration.registered is not None, "it may still be"
        plane.down = False
        await plane.asked("alive", 6)
        assert plane.count("register") == 23


@pytest.mark.failure("22")
async def test_who_has_lost_its_registration_registers_again_when_the_other_one_has_gone(
    autojump_clock: MockClock, logs: list[MutableMapping[str, Any]]
) -> None:
    plane = Plane()
    async with running(plane) as host:
        await plane.asked("register")
        assert plane.shown == ("s3cret", "", False)
        plane.denied["alive"] = Denied("superseded", "host-a was registered by another process, at 10.0.0.9:7600", 409)
        plane.denied["register"] = Denied("in_use", "host-a is the proxy at 10.0.0.9:7600", 409)
        await plane.asked("register", 9)
        assert plane.shown == ("s3cret", "", True), "the other one may have the same secret: it is not replaced in turn"
        assert host.registration.displaced
        assert host.displaced == [True]
        assert host.registration.last_error == "host-a is the proxy at 10.0.0.9:7600"
        errors = [(entry["here"], entry["error"]) for entry in logs if entry["log_level"] == "error"]
        assert errors == [
            ("10.0.0.1:7600", "host-a was registered by another process, at 10.0.0.9:7600"),
            ("10.0.0.1:7600", "host-a is the proxy at 10.0.0.9:7600"),
        ], "both addresses, each thing once"
        plane.denied.clear()
        host.registration.vacant()
        await eventually(lambda: host.registration.registered, "registered again")
        assert not host.registration.displaced
        assert host.displaced == [True, False]
        plane.epoch = "two"
        host.registration.seen("two", True)
        await eventually(lambda: not plane.shown[2], "once it is registered, it does not yield any more")


@pytest.mark.failure("22")
async def test_another_proxy_that_wants_to_be_this_host_is_named(
    autojump_clock: MockClock, logs: list[MutableMapping[str, Any]]
) -> None:
    plane = Plane()
    async with running(plane) as host:
        plane.namesake = Namesake(address="10.0.0.9:7600", client="192.0.2.9", instance="i2")
        await plane.asked("alive", 4)
        assert host.registration.namesake == plane.namesake
        warnings = [entry for entry in logs if entry["log_level"] == "warning"]
        assert [(entry["here"], entry["other"]) for entry in warnings] == [
            ("10.0.0.1:7600", "10.0.0.9:7600 (comes from 192.0.2.9)")
        ]
        assert host.displaced == [], "it is the other one that is refused"
        plane.namesake = None
        await eventually(lambda: host.registration.namesake is None, "it has gone")


async def test_leaving(autojump_clock: MockClock, logs: list[MutableMapping[str, Any]]) -> None:
    plane = Plane()
    async with running(plane) as host:
        await host.registration.leave()
        assert plane.count("leave") == 0, "it never was there"
        await plane.asked("register")
        await host.registration.leave()
        assert await plane.asked("leave") == ("leave", "host-a", "i1")
        plane.down = True
        await host.registration.leave()
        assert logs[-1]["event"] == "the control plane does not know that this host leaves"


async def test_leaving_does_not_wait_for_ever(autojump_clock: MockClock, logs: list[MutableMapping[str, Any]]) -> None:
    class Stuck(Plane):
        async def leave(self, name: str, instance: str) -> None:
            await trio.sleep_forever()

    plane = Stuck()
    async with running(plane) as host:
        await plane.asked("register")
        await host.registration.leave()
        assert logs[-1]["error"] == "no answer"


async def test_addresses_are_claimed_before_it_registers(autojump_clock: MockClock) -> None:
    plane, answers = Plane(), [Denied("taken", "address 10.0.0.1 on segment lan is host host-b's", 409)]
    claimed: list[int] = []

    async def claim() -> None:
        claimed.append(plane.count("register"))
        if answers:
            raise answers.pop()

    host = Host(plane)
    found = HostRegistrar(plane, lambda: host.record, host.forget, lambda: 0.5, claim)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.run)
        await plane.asked("register")
        nursery.cancel_scope.cancel()
    assert claimed == [0, 0], "refused once, then granted, and nothing registered before"


@pytest.mark.failure("31")
@pytest.mark.parametrize("code", ["revoked", "taken"])
@pytest.mark.parametrize("after", ["in_use", "accepted"])
async def test_what_it_was_refused_for_does_not_outlive_the_next_answer(
    autojump_clock: MockClock, code: str, after: str
) -> None:
    """And no answer is none: what was said last stands until something else is."""
    plane = Plane()
    async with running(plane) as host:
        registration = host.registration
        await eventually(lambda: registration.registered, "registered")
        refused = Denied(code, f"host-a: {code}", 403)
        plane.denied = {"alive": refused, "register": refused}
        await eventually(lambda: registration.refused, "refused")
        assert registration.barred is (code == "revoked")
        plane.down = True
        asked = len(plane.calls)
        await eventually(lambda: len(plane.calls) > asked + 2, "nobody answers")
        assert registration.last_error == f"host-a: {code}"
        assert registration.refused
        plane.down = False
        other = Denied("in_use", "host-a is the proxy at 10.0.0.9:7600", 409)
        plane.denied = {"alive": other, "register": other} if after == "in_use" else {}
        await eventually(lambda: not registration.refused, "another answer")
        assert not registration.barred
        if after == "accepted":
            assert registration.last_error is None
            return
        assert (registration.last_error, registration.displaced) == (str(other), True)
        plane.down = True
        asked = len(plane.calls)
        await eventually(lambda: len(plane.calls) > asked + 2, "nobody answers")
        assert registration.last_error == str(other)
        plane.down, plane.denied = False, {"register": refused}
        await eventually(lambda: registration.refused, "refused again")
        assert registration.displaced, "nobody has said otherwise"
        assert registration.last_error == f"host-a: {code}"


@pytest.mark.failure("31")
@pytest.mark.parametrize("code", ["revoked", "expired", "dropped"])
async def test_whose_certificate_is_refused_is_not_registered(
    autojump_clock: MockClock, logs: list[MutableMapping[str, Any]], code: str
) -> None:
    plane = Plane()
    async with running(plane) as host:
        await plane.asked("register")
        await eventually(lambda: host.registration.registered, "registered")
        denied = Denied(code, f"this certificate of host host-a: {code}", 403)
        plane.denied = {"register": denied, "alive": denied}
        # The watch knows it first.
        host.registration.bar(denied)
        assert (host.registration.registered, host.registration.barred) == (None, True)
        assert [each["error"] for each in logs if each["event"] == "not registered"] == [str(denied)]
        await plane.asked("register", 2)
        assert (host.registration.registered, host.registration.barred) == (None, True)
        plane.denied = {}
        await eventually(lambda: host.registration.registered, "registered")
        assert not host.registration.barred


@pytest.mark.failure("30")
async def test_a_host_that_peers_cannot_reach_waits(
    autojump_clock: MockClock, logs: list[MutableMapping[str, Any]]
) -> None:
    """It says so once, and registers at once when that is over."""
    plane, why = Plane(), "links.listen: no interface has that address"
    async with running(plane) as host:
        host.registration.unreachable = lambda: why
        await trio.sleep(100)
        assert (plane.count("register"), host.registration.last_error) == (0, why)
        assert [entry["error"] for entry in logs if entry["log_level"] == "warning"] == [why]
        why, before = "", trio.current_time()
        host.registration.renew()
        await plane.asked("register")
        assert trio.current_time() == before
        assert host.registration.last_error is None


def some_edge(name: str) -> EdgeInfo:
    return EdgeInfo(
        caller=name, caller_host="host-a", service="redis", host="host-b", direction="outbound", streams=1, opened=2,
        failed=0, sent=3, received=4, opened_per_s=0.5, failed_per_s=0.0, sent_per_s=5.0, received_per_s=6.0,
    )  # fmt: skip


def test_so_much_of_its_edges_is_told() -> None:
    usual = [some_edge(f"uid {number}") for number in range(60)]
    assert at_most(usual, 50, MOST_TOLD_BYTES) == tuple(usual[:50])
    long = [some_edge("x" * 400) for _ in range(60)]
    found = at_most(long, 50, MOST_TOLD_BYTES)
    assert 0 < len(found) < 50
    assert len(msgspec.json.encode(found)) <= MOST_TOLD_BYTES
    assert at_most([some_edge("x" * MOST_TOLD_BYTES)], 50, MOST_TOLD_BYTES) == ()
