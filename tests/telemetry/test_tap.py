"""Streams as they open and end: the queue of one who watches, and whole proxies that are watched while they run."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from proxy.errors import CloseReason
from proxy.pump.stalls import StallSeconds
from proxy.pump.streamlog import LoggedStream, StreamFacts, StreamLog
from proxy.telemetry import tap
from proxy.telemetry.tap import MOST, PULSE, QUEUE, TapFilter, Taps
from tests.pump.agents import Mesh, mesh
from tests.pump.rig import until

FACTS = StreamFacts(
    service="echo", direction="outbound", caller="shop", uid=1, pid=2, peer="host-b", link="host-b/1", tries=1,
    age=2.0, wait=0.02, open=0.01, first_byte=0.05, stalled=StallSeconds(0.25, 0.0, 0.0001), sent=3, received=4,
)  # fmt: skip
ECHO = TapFilter(service="echo")


class Some:
    """A stream that knows what it is."""

    stream_id = "0123/1"

    def __init__(self, **facts: Any) -> None:
        self._facts = FACTS._replace(**facts)

    def facts(self) -> StreamFacts:
        return self._facts


class Heard:
    """Who hears of all streams anyway."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def opened(self, stream: LoggedStream) -> None:
        self.events.append("opened")

    def ended(self, stream: LoggedStream, reason: CloseReason, detail: str) -> None:
        self.events.append("ended")


class Told:
    """Who is to hear of which service, as it was said last."""

    def __init__(self, log: StreamLog | None = None) -> None:
        self.now: dict[str, StreamLog | None] = {}
        self.taps = Taps(log, self.now.__setitem__)
        self.pieces: list[bytes] = []
        self.reads = trio.Event()
        self.reads.set()

    async def send(self, piece: bytes) -> None:
        self.pieces.append(piece)
        await self.reads.wait()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in b"".join(self.pieces).splitlines() if line]

    def tell(self, reason: CloseReason = CloseReason.FINISHED, **facts: Any) -> None:
        """A stream opens and ends."""
        found = self.now["echo"]
        assert found is not None
        stream = Some(**facts)
        found.opened(stream)
        found.ended(stream, reason, "")


@asynccontextmanager
async def following(wanted: TapFilter = ECHO, log: StreamLog | None = None) -> AsyncIterator[Told]:
    told = Told(log)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(told.taps.follow, wanted, told.send)
        await until(lambda: bool(told.pieces), "the first word")
        yield told
        nursery.cancel_scope.cancel()
    assert told.now["echo"] is None


@pytest.mark.parametrize(
    ("wanted", "events"),
    [
        ({}, ["opened", "ended"]),
        ({"caller": "shop", "peer": "host-b", "direction": "outbound"}, ["opened", "ended"]),
        ({"caller": "uid 1"}, []),
        ({"peer": "host-c"}, []),
        ({"direction": "inbound"}, []),
        ({"failed": True}, []),
    ],
)
async def test_who_watches_sees_what_is_asked_for(wanted: dict[str, Any], events: list[str]) -> None:
    heard = Heard()
    async with following(TapFilter(service="echo", **wanted), heard) as told:
        told.tell()
        told.tell(service="echo", caller="other")
        told.tell(CloseReason.CONNECT_FAILED, caller="last", peer="host-b")
        await until(lambda: len(told.lines) >= (6 if not wanted else len(events) + bool(wanted.get("failed"))), "lines")
        mine = [line["event"] for line in told.lines if line["caller"] == "shop"]
        assert mine == events
        assert heard.events == ["opened", "ended"] * 3
        if wanted.get("failed"):
            assert [(line["event"], line["reason"]) for line in told.lines] == [("ended", "connect_failed")]


async def test_callers_without_a_name() -> None:
    async with following(TapFilter(service="echo", caller="uid 1000")) as told:
        told.tell(caller="", uid=1000)
        await until(lambda: len(told.lines) == 2, "lines")
        told.tell(caller="", uid=None)
        told.tell(caller="", uid=1000)
        await until(lambda: len(told.lines) == 4, "lines")


async def test_who_is_too_slow_loses_the_oldest_and_is_told() -> None:
    async with following() as told:
        told.reads = trio.Event()
        told.tell(sent=0)
        await until(lambda: len(told.pieces) == 2, "a piece that is not taken")
        for number in range(1, QUEUE + 6):
            told.tell(sent=number)
        told.reads.set()
        await until(lambda: told.lines[-1]["sent"] == QUEUE + 5, "the last")
        lost = [line["lost"] for line in told.lines]
        assert sum(lost) == 2 * (QUEUE + 5) - QUEUE
        assert len(lost) + sum(lost) == 2 * (QUEUE + 6)
        assert [bool(count) for count in lost].index(True) == 2, "where they are missing"


async def test_who_watches_is_told_that_there_is_nothing_new(autojump_clock: MockClock) -> None:
    async with following() as told:
        await trio.sleep(10.5 * PULSE)
        assert told.pieces == [b"\n"] * 11


async def test_several_watch_and_only_so_many() -> None:
    told = Told()
    async with trio.open_nursery() as nursery:
        for number in range(MOST):
            assert not told.taps.full
            nursery.start_soon(told.taps.follow, TapFilter(service=f"s{number % 2}"), told.send)
            await until(lambda wanted=number: len(told.pieces) > wanted, "one more")  # type: ignore[misc]
        assert told.taps.full
        told.taps.close()
    assert told.now == {"s0": None, "s1": None}


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ({}, "no service is named; query: service=NAME"),
        ({"service": [""]}, "no service is named; query: service=NAME"),
        ({"service": ["a"], "uid": ["1"]}, "query 'uid' is not allowed; allowed: service, caller, peer, direction"),
        ({"service": ["a"], "failed": ["1"]}, "failed '1' is not allowed; allowed: yes, no"),
    ],
)
def test_what_is_no_filter(query: dict[str, list[str]], why: str) -> None:
    with pytest.raises(ValueError, match=why.replace("?", r"\?")):
        TapFilter.of(query)


class Tapping:
    """A client of a proxy's admin socket."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream, self._text = stream, b""

    async def read(self) -> None:
        async for piece in self._stream:
            self._text += piece

    @property
    def began(self) -> bool:
        return b"\r\n\r\n" in self._text

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._text.splitlines() if line.startswith(b"{")]


@asynccontextmanager
async def tapping(hosts: Mesh, host: str, query: str = "service=echo") -> AsyncIterator[Tapping]:
    stream = await trio.open_unix_socket(str(hosts.folder / host / "admin.sock"))
    async with stream, trio.open_nursery() as nursery:
        await stream.send_all(f"GET /tap?{query} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        found = Tapping(stream)
        nursery.start_soon(found.read)
        await until(lambda: found.began, "the answer")
        agent = hosts.agents[host]
        await until(lambda: agent.stats.log_of("echo") is not agent.access, "the tap")
        yield found
        nursery.cancel_scope.cancel()


async def test_streams_of_a_proxy_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tap, "PULSE", 0.05)
    async with mesh() as hosts:
        service = await hosts.pair()
        a, b = (hosts.agents[host] for host in ("host-a", "host-b"))

        async def converse(end_before: bool = False) -> None:
            caller = hosts.call()
            await caller.send(b"hello")
            accepted = await service.accept()
            assert await accepted.read(5) == b"hello"
            await accepted.send(b"worlds")
            assert await caller.read(6) == b"worlds"
            caller.close()
            await accepted.rest()
            accepted.close()

        early = hosts.call()
        await early.send(b"early")
        accepted = await service.accept()
        await accepted.read(5)
        async with tapping(hosts, "host-a") as near, tapping(hosts, "host-b") as far:
            await converse()
            for found in (near, far):
                await until(lambda found=found: len(found.lines) == 2, "both lines")  # type: ignore[misc]
                assert [line["event"] for line in found.lines] == ["opened", "ended"]
            assert near.lines[1]["id"] == far.lines[1]["id"]
            assert near.lines[1]["open_ms"] > 0
            early.close()
            await accepted.rest()
            accepted.close()
            for found in (near, far):
                await until(lambda found=found: len(found.lines) == 3, "the one from before")  # type: ignore[misc]
                line = found.lines[2]
                assert (line["event"], line["reason"], line["open_ms"]) == ("ended", "finished", None)
            assert near.lines[2]["sent"] == far.lines[2]["received"] == 5
        await until(lambda: a.stats.log_of("echo") is b.stats.log_of("echo") is None, "nobody watches")
        await converse()


async def test_who_watches_goes_over_when_another_process_has_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tap, "PULSE", 0.05)
    async with mesh() as hosts:
        await hosts.pair()
        sections = {**hosts.peers(b=["echo"]), "upstreams": {"echo": {"listen": hosts.upstream("host-a", "echo")}}}
        stream = await trio.open_unix_socket(str(hosts.folder / "host-a" / "admin.sock"))
        async with stream:
            await stream.send_all(b"GET /tap?service=echo HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
            await hosts.takeover("host-a", sections)
            async for _ in stream:
                pass
        async with tapping(hosts, "host-a"):
            pass


@pytest.mark.parametrize(
    ("query", "says"),
    [("", "no service is named"), ("service=a&x=1", "query 'x' is not allowed"), ("service=a&failed=x", "failed 'x'")],
)
async def test_a_wrong_question(query: str, says: str) -> None:
    async with mesh() as hosts:
        await hosts.start("host-a")
        stream = await trio.open_unix_socket(str(hosts.folder / "host-a" / "admin.sock"))
        async with stream:
            await stream.send_all(f"GET /tap?{query} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            text = b"".join([piece async for piece in stream]).decode()
        assert text.startswith("HTTP/1.1 400")
        assert says in text
