"""Numbers of links, and how long they stay."""

from __future__ import annotations

import pytest

from control.base.exposition import Readings
from proxy.errors import CloseReason
from proxy.pump import seriesbudget
from proxy.telemetry.metrics import catalog
from tests.pump.agents import mesh
from tests.pump.rig import until
from tests.telemetry.metrics.told import both, converse, scrape


async def test_what_a_link_has_done_stays_when_it_has_ended() -> None:
    async with mesh() as hosts:
        service, near, _ = await both(hosts)
        await converse(hosts, service)
        before = await scrape(near)
        agent = hosts.agents["host-a"]
        [link] = agent.pools["host-b"].links
        link.doom(CloseReason.LINK_LOST, "a test")
        agent.pump.settle()
        await until(lambda: agent.pools["host-b"].sessions.resumed, "the session goes on")
        told = await scrape(near)
        assert told("hostlane_links_ended_total", peer="host-b", reason="link_lost") == 1
        assert told("hostlane_sessions_resumed_total", peer="host-b") == 1
        for name in ("sent_bytes", "received_bytes", "frames", "sends"):
            name = f"hostlane_link_{name}_total"
            assert told(name, peer="host-b") >= before(name, peer="host-b") > 0
        [session] = agent.pools["host-b"].sessions
        session.stop(CloseReason.STOPPED)
        agent.pump.settle()
        await until(lambda: not agent.pools["host-b"].links, "it is over")
        after = await scrape(near)
        for name in ("sent_bytes", "received_bytes", "frames", "sends"):
            name = f"hostlane_link_{name}_total"
            assert after(name, peer="host-b") >= told(name, peer="host-b")


async def test_a_peer_that_has_left_is_told_of_for_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    async with mesh() as hosts:
        service, near, _ = await both(hosts)
        await converse(hosts, service)
        agent = hosts.agents["host-a"]
        agent.rebase(hosts.config("host-a", {"telemetry": {"listen": f"127.0.0.1:{near}"}}))
        await until(lambda: not agent.pools.everywhere, "it is gone")
        told = await scrape(near)
        assert told("hostlane_streams_ended_total", service="echo", peer="host-b") == 1
        assert told("hostlane_link_frames_total", peer="host-b") > 0
        monkeypatch.setattr(seriesbudget, "FORGET", 0.0)
        told = await scrape(near)
        assert not list(told.values("hostlane_streams_ended_total"))
        assert not list(told.values("hostlane_link_frames_total"))


async def test_callers_that_nobody_has_accepted_yet() -> None:
    async with mesh() as hosts:
        _, near, _ = await both(hosts)
        assert (await scrape(near))("hostlane_upstream_backlog", service="echo") == 0
        readings = Readings()
        callers = [hosts.call() for _ in range(3)]
        for _ in hosts.agents["host-a"]._network._routes(readings):  # at once: nobody has turned yet
            pass
        assert readings.numbers[catalog.UPSTREAM_BACKLOG] == {("echo",): 3}
        for caller in callers:
            caller.close()


async def test_a_slow_reader_is_told_of_at_both_ends() -> None:
    async with mesh() as hosts:
        service, near, far = await both(hosts)
        caller = hosts.call()
        end = await service.accept()
        sent = 0

        def stalled() -> bool:
            nonlocal sent
            sent += caller.fill()
            return any(not lane.credit for pool in hosts.agents["host-a"].pools.values() for session in pool.sessions
                       for lane in session.streams.values())  # fmt: skip

        await until(stalled, "the service reads nothing")
        assert (await scrape(near))("hostlane_stream_stalled_seconds_total", service="echo", cause="credit") > 0
        assert (await scrape(far))("hostlane_stream_stalled_seconds_total", service="echo", cause="reader") > 0
        await end.read(sent)
        caller.close()
        await end.rest()
        end.close()
