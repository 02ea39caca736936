"""A peer that says how many streams a second it takes gets no more than that, and none of them is refused."""

from __future__ import annotations

import pytest

from control.base.tokenbucket import TokenBucket
from proxy.errors import CloseReason
from proxy.inbound.inbound import FASTER, SLACK
from proxy.pool.pacing import LOOK_AGAIN, Pacer
from tests.pump.agents import mesh
from tests.pump.rig import until

pytestmark = pytest.mark.failure("21b-f")


def takes(pacer: Pacer, now: float, *, link: str = "a", heard: int = 0, most: int = 1000) -> int:
    """How many streams may be opened at once; `heard`: what shows that those before have arrived."""
    return next(count for count in range(most + 1) if count == most or not pacer.take(link, heard, now))


def test_without_a_rate_nothing_is_counted() -> None:
    pacer = Pacer(["waits"])
    assert takes(pacer, 0.0) == 1000


@pytest.mark.parametrize(("rate", "burst"), [(1, 1), (3, 1), (8, 2), (400, 100)])
def test_a_burst_and_then_the_rate(rate: int, burst: int) -> None:
    pacer = Pacer(())
    pacer.tell(rate)
    assert takes(pacer, 100.0) == burst
    assert pacer.wait(100.0) == pytest.approx(1 / rate)
    now, opened = 100.0, 0
    for heard in range(1, 10 * rate + 1):
        now += 1 / rate
        opened += takes(pacer, now, heard=heard)
    assert opened in (10 * rate, 10 * rate - 1), "ten seconds' worth, but for the rounding of the last"


@pytest.mark.parametrize("links", [1, 2, 8])
def test_no_more_than_a_burst_is_under_way(links: int) -> None:
    """On all links together, as all of it may arrive at once."""
    pacer = Pacer(())
    pacer.tell(40)
    names = [f"link {number}" for number in range(links)]
    assert sum(takes(pacer, float(now), link=names[now % links], heard=7) for now in range(60)) == 10
    assert pacer.doubtful in names
    assert pacer.wait(60.0) == LOOK_AGAIN
    pacer.heard(pacer.doubtful, 7)
    assert takes(pacer, 61.0, link=names[0], heard=7) == 0
    for name in names:
        pacer.heard(name, 8)
    assert takes(pacer, 62.0, link=names[0], heard=8) == 10
    pacer.forget(names[0])
    assert takes(pacer, 90.0, link=names[0], heard=8) == 10, "its streams go over to another link"


def test_after_a_stall_nobody_is_refused() -> None:
    """Whatever is opened while nothing arrives, comes at once, and then the usual rate: it fits what the peer takes."""
    rate = 400
    pacer = Pacer(())
    pacer.tell(rate)
    peer = TokenBucket(FASTER * rate, rate + SLACK)
    heard, arrives = 0, []
    for step in range(20 * rate):
        now = 1000 + step / rate
        stalled = 5 * rate <= step < 10 * rate
        if not stalled:
            heard += 1
        if pacer.take("a", heard, now):
            arrives.append(1000 + 10.0 if stalled else now)
    assert len(arrives) > 14 * rate
    assert all(peer.take(now) for now in sorted(arrives))


@pytest.mark.parametrize("faster", [1.0, 1.0002, 1.005])
def test_clocks_differ(faster: float) -> None:
    rate = 100
    pacer, peer = Pacer(()), TokenBucket(FASTER * rate, rate + SLACK)
    pacer.tell(rate)
    for step in range(3600 * rate):
        now = step / rate
        assert not pacer.take("a", step, now * faster) or peer.take(now), now


def test_nobody_overtakes_who_waits() -> None:
    waiting: list[str] = []
    pacer = Pacer(waiting)
    pacer.tell(4)
    waiting.append("first")
    assert not pacer.take("a", 0, 50.0)
    pacer.serving = True
    assert pacer.take("a", 0, 50.0)


def test_another_rate() -> None:
    pacer = Pacer(())
    pacer.tell(4)
    assert takes(pacer, 1.0) == 1
    pacer.tell(400)
    assert takes(pacer, 1.0, heard=1) == 100
    pacer.tell(None)
    assert takes(pacer, 1.0, heard=1) == 1000


async def test_calls_wait_for_their_turn() -> None:
    """Three times as many as the peer takes at once: all arrive, in their order, and none is refused."""
    async with mesh() as hosts:
        service = hosts.service()
        await hosts.start(
            "host-b", **hosts.peers(a=[]), services={"echo": {"deliver": service.address}},
            limits={"opens_per_second": 20},
        )  # fmt: skip
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo")}}
        near = await hosts.start("host-a", **hosts.peers(b=["echo"]), upstreams=upstreams)
        pool = near.pools["host-b"]
        await until(lambda: pool.up, "the link")
        assert pool.opens_per_second == near.view.status().peers[0].opens_per_second == 20
        callers = [hosts.call() for _ in range(60)]
        for number, caller in enumerate(callers):
            await caller.send(b"%03d" % number)
        await until(lambda: pool.waiting > 30, "most of them wait")
        for number in range(60):
            accepted = await service.accept()
            assert await accepted.read(3) == b"%03d" % number
        assert not near.stats.failures
        assert not hosts.agents["host-b"].stats.failures


async def test_a_call_without_a_turn_fails_as_overloaded() -> None:
    """Neither as unreachable, nor as a failure of the host: others go on there."""
    async with mesh() as hosts:
        service = hosts.service()
        await hosts.start(
            "host-b", **hosts.peers(a=[]), services={"echo": {"deliver": service.address}},
            limits={"opens_per_second": 1},
        )  # fmt: skip
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo")}}
        near = await hosts.start(
            "host-a", **hosts.peers(b=["echo"]), upstreams=upstreams, limits={"open_timeout": "100ms"}
        )
        await until(lambda: near.pools["host-b"].up, "the link")
        callers = [hosts.call() for _ in range(9)]
        await until(lambda: near.stats.failures.get(CloseReason.OVERLOADED, 0) >= 7, "those without a turn")
        assert set(near.stats.failures) == {CloseReason.OVERLOADED}
        assert not near.outbound.context.ejections.hosts
        accepted = await service.accept()
        await callers[0].send(b"there")
        assert await accepted.read(5) == b"there"


async def test_a_changed_rate_holds_from_the_next_link_on() -> None:
    async with mesh() as hosts:
        service = hosts.service()
        sections = {**hosts.peers(a=[]), "services": {"echo": {"deliver": service.address}}}
        far = await hosts.start("host-b", **sections)
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo")}}
        near = await hosts.start("host-a", **hosts.peers(b=["echo"]), upstreams=upstreams)
        pool = near.pools["host-b"]
        await until(lambda: pool.up, "the link")
        far.apply(hosts.config("host-b", {**sections, "limits": {"opens_per_second": 1}}))
        callers = [hosts.call() for _ in range(20)]
        accepted = [await service.accept() for _ in callers]
        assert not far.stats.failures, "nobody is held to what was not said"
        (link,) = pool.links
        link._sock.shutdown(2)
        await until(lambda: pool.up and pool.opens_per_second == 1, "the session goes on over another link")
        await callers[0].send(b"there")
        assert b"there" in [await each.read(5) for each in accepted if each is accepted[0]]
        (session,) = far.pools["host-a"].sessions
        assert session.local.opens_per_second == 1
