"""A scrape of a real proxy that carries streams."""

from __future__ import annotations

from time import perf_counter

import pytest
import trio

from control.base.exposition import OPENMETRICS, TEXT, Breather
from proxy.errors import CloseReason
from tests.pump.agents import mesh
from tests.pump.rig import until
from tests.telemetry.metrics.told import OPEN, ask, both, converse, free_port, scrape


@pytest.mark.parametrize("accept", ["application/openmetrics-text", "*/*"])
async def test_streams_are_told_at_both_ends(accept: str) -> None:
    async with mesh() as hosts:
        service, near, far = await both(hosts)
        for _ in range(3):
            await converse(hosts, service)
        await until(lambda: not any(agent.stats.open for agent in hosts.agents.values()), "all have ended")
        stream = {"service": "echo", "peer": "host-b", "direction": "outbound"}
        told = await scrape(near, accept)
        assert told("hostlane_streams_opened_total", service="echo", direction="outbound") == 3
        assert told("hostlane_streams_ended_total", **stream, reason="finished") == 3
        assert told("hostlane_stream_sent_bytes_total", **stream) == 21
        assert told("hostlane_stream_received_bytes_total", **stream) == 24
        assert told("hostlane_streams_open", **stream) == 0
        for name in ("wait", "open", "first_byte"):
            assert told(f"hostlane_stream_{name}_seconds_count", service="echo") == 3
        assert told("hostlane_peer_up", peer="host-b") == told("hostlane_links", peer="host-b") == 1
        assert told("hostlane_link_frames_total") > 0
        assert told("hostlane_upstream_hosts", service="echo", state="usable") == 1
        told = await scrape(far, accept)
        stream = {"service": "echo", "peer": "host-a", "direction": "inbound"}
        assert told("hostlane_streams_opened_total", service="echo", direction="inbound") == 3
        assert told("hostlane_streams_ended_total", **stream) == 3
        assert told("hostlane_stream_sent_bytes_total", **stream) == 24
        assert told("hostlane_service_connect_seconds_count", service="echo") == 3


async def test_bytes_of_a_stream_that_is_open_are_told_and_never_twice() -> None:
    async with mesh() as hosts:
        service, near, _ = await both(hosts)
        caller = hosts.call()
        end = await service.accept()
        for count in range(1, 4):
            await caller.send(b"ten bytes.")
            await end.read(10)
            told = await scrape(near)
            assert told("hostlane_stream_sent_bytes_total") == 10 * count
            assert told("hostlane_streams_open", service="echo", peer="host-b", direction="outbound") == 1
        caller.close()
        await end.rest()
        end.close()
        await until(lambda: not hosts.agents["host-a"].stats.open, "it has ended")
        assert (await scrape(near))("hostlane_stream_sent_bytes_total") == 30


async def test_a_call_that_nobody_takes_has_no_peer() -> None:
    async with mesh() as hosts:
        near = free_port()
        await hosts.start(
            "host-a",
            **hosts.peers(b=["echo"]),
            upstreams={"echo": {"listen": hosts.upstream("host-a", "echo")}},
            limits={"open_timeout": "50ms"},
            telemetry={"listen": f"127.0.0.1:{near}"},
        )
        caller = hosts.call()
        await caller.rest()
        told = await scrape(near)
        stream = {"service": "echo", "peer": "", "direction": "outbound"}
        assert told("hostlane_streams_ended_total", **stream, reason="peer_unreachable") == 1
        assert told("hostlane_handshakes_total", peer="host-b", direction="outbound", outcome="failed") >= 1
        assert told("hostlane_upstream_hosts", service="echo", state="unreachable") == 1
        assert told("hostlane_peer_up", peer="host-b") == 0


async def test_what_peers_call_and_nobody_offers_has_no_name() -> None:
    async with mesh() as hosts:
        near, far = free_port(), free_port()
        await hosts.start("host-b", **hosts.peers(a=[]), telemetry={"listen": f"127.0.0.1:{far}"})
        await hosts.start(
            "host-a",
            **hosts.peers(b=["echo"]),
            upstreams={"echo": {"listen": hosts.upstream("host-a", "echo")}},
            telemetry={"listen": f"127.0.0.1:{near}"},
        )
        await hosts.call().rest()
        told = await scrape(far)
        assert told("hostlane_streams_ended_total", service="other", reason="no_such_service") == 1
        assert not list(told.values("hostlane_streams_ended_total", service="echo"))
        told = await scrape(near)
        assert told("hostlane_stream_retries_total", service="echo", peer="host-b", reason="no_such_service") == 1


async def test_a_stream_within_the_host_is_local() -> None:
    async with mesh() as hosts:
        service, near = hosts.service(), free_port()
        await hosts.start(
            "host-a",
            services={"echo": {"deliver": service.address}},
            upstreams={"echo": {"listen": hosts.upstream("host-a", "echo")}},
            telemetry={"listen": f"127.0.0.1:{near}"},
        )
        caller = hosts.call()
        end = await service.accept()
        await caller.send(b"12345")
        await end.read(5)
        stream = {"service": "echo", "peer": "", "direction": "local"}
        told = await scrape(near)
        assert told("hostlane_streams_open", **stream) == 1
        assert told("hostlane_stream_sent_bytes_total", **stream) == 5
        assert told("hostlane_stream_open_seconds_count", service="echo") == 1
        assert told("hostlane_stream_first_byte_seconds_count", service="echo") == 0
        await end.send(b"answer")
        await caller.read(6)
        told = await scrape(near)
        for name in ("wait", "open", "first_byte"):
            assert told(f"hostlane_stream_{name}_seconds_count", service="echo") == 1
        sent = 0

        def full() -> bool:
            nonlocal sent
            more = caller.fill()
            sent += more
            return not more and hosts.agents["host-a"].pump.budget.used > 0

        await until(full, "the service does not read")
        await end.read(sent)
        told = await scrape(near)
        assert told("hostlane_stream_stalled_seconds_total", **stream, cause="reader") > 0
        caller.close()
        await end.rest()
        end.close()
        await until(lambda: not hosts.agents["host-a"].stats.open, "it has ended")
        told = await scrape(near)
        assert told("hostlane_streams_ended_total", **stream, reason="finished") == 1
        assert told("hostlane_stream_sent_bytes_total", **stream) == 5 + sent


async def test_who_asks_how_gets_what() -> None:
    async with mesh() as hosts:
        _, near, _ = await both(hosts, hosts=["Proxy.example"])
        assert (await ask(near)).headers["content-type"] == TEXT
        assert (await ask(near, accept=OPEN)).headers["content-type"] == OPENMETRICS
        empty = await ask(near, method="HEAD")
        assert (empty.status, empty.body) == (200, b"")
        assert int(empty.headers["content-length"]) > 1000
        for host in ("127.0.0.1:9600", "[::1]:9600", "localhost", "LOCALHOST.:1", "proxy.example:9600"):
            assert (await ask(near, host=host)).status == 200, host
        for host in ("evil.example", "proxy.example.evil", ""):
            refused = await ask(near, host=host)
            assert refused.status == 421, host
            assert b"telemetry.hosts" in refused.body
        assert (await ask(near, method="POST")).status == 405
        assert (await ask(near, "/reload", method="POST")).status == 404
        missing = await ask(near, "/nothing")
        assert (missing.status, b"/metrics, /alive, /ready, /mesh" in missing.body) == (404, True)
        assert (await ask(near, "/ready")).status == 200


async def test_series_have_a_bound() -> None:
    async with mesh() as hosts:
        near, service = free_port(), hosts.service()
        names = [f"service-{number}" for number in range(40)]
        await hosts.start(
            "host-a",
            services={name: {"deliver": service.address} for name in names},
            upstreams={name: {"listen": hosts.upstream("host-a", name)} for name in names},
            telemetry={"listen": f"127.0.0.1:{near}", "max_series": 200},
        )
        before = len((await scrape(near)).samples)
        for name in names:
            caller = hosts.call(name=name)
            end = await service.accept()
            caller.close()
            await end.rest()
            end.close()
        await until(lambda: not hosts.agents["host-a"].stats.open, "all have ended")
        told = await scrape(near)
        named = [sample for sample in told.samples if sample.labels.get("service", "other") != "other"]
        assert before <= len(told.samples)
        assert 0 < len(named) <= 200
        assert told("hostlane_streams_opened_total") == len(names)
        assert told("hostlane_streams_opened_total", service="other") > 0


async def test_a_scrape_of_many_series_lets_others_run() -> None:
    """Its pieces are short by number, whatever this machine is busy with."""
    async with mesh() as hosts:
        _, near, _ = await both(hosts, max_series=6000)
        agent = hosts.agents["host-a"]
        for number in range(500):
            count = agent.stats.counts.stream(f"service-{number}", "host-b", "outbound")
            count.ended[CloseReason.FINISHED] = number
        turns = 0

        async def watch() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        breather = Breather()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            began = perf_counter()
            readings = await agent.metrics.read(breather)
            took = perf_counter() - began
            nursery.cancel_scope.cancel()
        assert readings.series > 3000
        assert turns > 3
        assert took > 0
        told = await scrape(near)
        assert len(told.samples) > 3000


@pytest.mark.parametrize("which", ["admin", "telemetry"])
async def test_the_sockets_tell_them_too(which: str) -> None:
    async with mesh() as hosts:
        monitoring = hosts.folder / "m" / "status.sock"
        agent = await hosts.start("host-a", telemetry={"socket": str(monitoring)})
        path = f"{agent.config.run_dir}/admin.sock" if which == "admin" else str(monitoring)
        async with await trio.open_unix_socket(path) as stream:
            await stream.send_all(f"GET /metrics HTTP/1.1\r\nhost: x\r\naccept: {OPEN}\r\n\r\n".encode())
            received = b"".join([piece async for piece in stream])
        head, _, body = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert OPENMETRICS.encode() in head
        assert body.endswith(b"# EOF\n")
        assert b"hostlane_build_info" in body
