"""The access log of whole proxies, and the log alone with streams that only tell of themselves."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from control.api.accessline import AccessLine
from control.base.system.logwriter import LogWriter, NoSummaries
from proxy.config.schema import AccessConfig
from proxy.errors import CloseReason, StartError
from proxy.pump.stalls import StallSeconds
from proxy.pump.streamlog import StreamFacts
from proxy.telemetry import accesslog
from proxy.telemetry.accesslog import AccessLog
from tests.pump.agents import Mesh, mesh
from tests.pump.rig import until
from tests.tools.sockets import PATIENCE, eventually

FACTS = StreamFacts(
    service="echo", direction="outbound", caller="shop", uid=1, pid=2, peer="host-b", link="host-b/1", tries=1,
    age=2.0, wait=0.02, open=0.01, first_byte=0.05, stalled=StallSeconds(0.25, 0.0, 0.0001), sent=3, received=4,
)  # fmt: skip


class Some:
    """A stream that knows what it is."""

    def __init__(self, stream_id: str | None = "0123/1", **facts: Any) -> None:
        self.stream_id = stream_id
        self._facts = FACTS._replace(**facts)

    def facts(self) -> StreamFacts:
        return self._facts


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@contextmanager
def opened(path: Path, **settings: Any) -> Iterator[AccessLog]:
    access = AccessLog(AccessConfig(to=str(path), **settings), lambda: None)
    access.open()
    try:
        yield access
    finally:
        access.close()
        access.close()


def written(path: Path, streams: list[Some], reason: CloseReason = CloseReason.FINISHED, **settings: Any) -> list[str]:
    """The events of which lines are written when these streams open and end."""
    with opened(path, events=("opened", "ended"), **settings) as access:
        for stream in streams:
            access.opened(stream)
            access.ended(stream, reason, "")
    return [line["event"] for line in lines(path)]


def test_all_streams(tmp_path: Path) -> None:
    assert written(tmp_path / "log", [Some(), Some()]) == ["opened", "ended"] * 2


def test_only_failed_ones(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for reason in (CloseReason.FINISHED, CloseReason.ABORTED):
        assert written(path, [Some()], reason, only="failed") == []
    assert written(path, [Some()], CloseReason.CONNECT_FAILED, only="failed") == ["ended"]
    assert lines(path)[0]["reason"] == "connect_failed"


def test_only_slow_ones(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert written(path, [Some()], only=0.0301) == []
    assert written(path, [Some(wait=0.0212)], only=0.0301) == ["opened", "ended"]
    with opened(path, only=5.0) as access:
        access.ended(Some(open=None, age=5.1), CloseReason.PEER_UNREACHABLE, "no link within 5 s")
    assert lines(path)[-1]["detail"] == "no link within 5 s"
    assert lines(path)[-1]["stalled_s"] == {"credit": 0.25}


def test_a_sample_is_the_same_everywhere(tmp_path: Path) -> None:
    streams = [Some(f"0123/{number}") for number in range(1000)]
    for name in ("a", "b"):
        written(tmp_path / name, streams, sample=0.1)
    picked = [{line["id"] for line in lines(tmp_path / name)} for name in ("a", "b")]
    assert picked[0] == picked[1]
    assert 50 < len(picked[0]) < 200
    assert len(lines(tmp_path / "a")) == 2 * len(picked[0])
    nowhere = [Some(None) for _ in range(1000)]
    assert 50 < len(written(tmp_path / "c", nowhere, sample=0.1)) < 450


class Collected(LogWriter):
    """Keeps the lines, without a thread."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def put(self, line: bytes, urgent: bool = False) -> None:
        self.lines.append(json.loads(line))


async def test_lines_in_between(autojump_clock: MockClock) -> None:
    collected = Collected()
    access = AccessLog(AccessConfig(to="stderr", events=("interval", "ended"), interval=60.0), lambda: collected)
    access.open()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accesslog, "monotonic", trio.current_time)
        async with trio.open_nursery() as nursery:
            await nursery.start(access.run)
            first, second = Some("1/1"), Some("1/2")
            access.opened(first)
            await trio.sleep(30.5)
            access.opened(second)
            await trio.sleep(62)
            access.ended(first, CloseReason.FINISHED, "")
            await trio.sleep(600)
            access.adopt(AccessConfig(to="stderr", events=("ended",)))
            await trio.sleep(600)
            access.ended(second, CloseReason.FINISHED, "")
            nursery.cancel_scope.cancel()
    found = [(line["event"], line["id"]) for line in collected.lines]
    assert found[:3] == [("interval", "1/1"), ("interval", "1/2"), ("ended", "1/1")]
    assert found[3:] == [("interval", "1/2")] * 10 + [("ended", "1/2")]


def test_what_finds_no_place_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accesslog, "ROOM", 100)
    path = tmp_path / "log"
    with opened(path) as access:
        access.ended(Some(), CloseReason.FINISHED, "")
        assert access.lost == 1
    assert lines(path) == []


def test_a_disk_that_takes_no_more(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    path = folder / "log"
    with capture_logs() as logs, opened(path) as access:
        path.unlink()
        path.mkdir()
        access.ended(Some(), CloseReason.FINISHED, "")
        eventually(lambda: access.lost == 1, "the loss")
        path.rmdir()
        access.ended(Some(), CloseReason.FINISHED, "")
        eventually(lambda: len(lines(path)) == 2, "both lines")
    assert [entry["event"] for entry in logs] == [
        "the access log cannot be written",
        "the access log can be written again",
    ]
    assert [(line["event"], line.get("lines")) for line in lines(path)] == [("ended", None), ("lost", 1)]


def test_it_goes_to_stderr_as_it_is() -> None:
    class Into:
        piece = 4096
        data = b""

        def write(self, data: bytes) -> int:
            self.data += data
            return 0

        def look(self) -> None: ...

    output = Into()
    writer = LogWriter(output, lambda lines: b"", NoSummaries())
    access = AccessLog(AccessConfig(to="stderr"), lambda: writer)
    access.open()
    access.ended(Some(), CloseReason.FINISHED, "")
    access.close()
    access.ended(Some(), CloseReason.FINISHED, "")
    assert writer.close(PATIENCE), "which was not the access log's to close"
    assert msgspec.json.decode(output.data, type=AccessLine).id == "0123/1"


def test_a_file_that_cannot_be(tmp_path: Path) -> None:
    access = AccessLog(AccessConfig(to=str(tmp_path / "missing" / "log")), lambda: None)
    with pytest.raises(StartError, match=r"access\.to: .*: No such file or directory"):
        access.open()
    access.close()


def access_of(hosts: Mesh, **settings: Any) -> dict[str, Any]:
    """The section, for both hosts of a pair: they append to one file, as two processes of a host do."""
    return {"access": {"to": f"{hosts.folder}/access.log", "events": ["opened", "ended"], **settings}}


async def test_both_hosts_tell_of_a_stream() -> None:
    async with mesh() as hosts:
        path = hosts.folder / "access.log"
        service = await hosts.pair(**access_of(hosts))
        caller = hosts.call()
        await caller.send(b"hello")
        accepted = await service.accept()
        assert await accepted.read(5) == b"hello"
        await accepted.send(b"worlds")
        assert await caller.read(6) == b"worlds"
        caller.close()
        await until(lambda: len(lines(path)) == 4, "all lines")
        found = {(line["event"], line["direction"]): line for line in lines(path)}
        assert len(found) == 4
        assert len({line["id"] for line in found.values()}) == 1
        out, back = found["ended", "outbound"], found["ended", "inbound"]
        assert (out["uid"], out["pid"], out["peer"], out["tries"]) == (os.getuid(), os.getpid(), "host-b", 1)
        assert (back["uid"], back["pid"], back["peer"], back["tries"]) == (os.getuid(), None, "host-a", 1)
        assert (out["sent"], out["received"], back["sent"], back["received"]) == (5, 6, 6, 5)
        assert (out["reason"], back["reason"]) == ("finished", "finished")
        assert out["wait_ms"] >= 0 < out["open_ms"]
        assert (back["wait_ms"], back["open_ms"] >= 0) == (None, True)
        assert out["link"].startswith("host-b/")
        assert out["first_byte_ms"] >= out["open_ms"]
        assert found["opened", "outbound"]["first_byte_ms"] is back["first_byte_ms"] is None
        assert out["stalled_s"] == back["stalled_s"] == {}
        assert hosts.agents["host-a"].view.status().access_lost == 0


async def test_a_call_that_nobody_takes() -> None:
    async with mesh() as hosts:
        path = hosts.folder / "access.log"
        await hosts.start("host-b", **hosts.peers(a=[]), services={"echo": {"deliver": f"unix:{hosts.folder}/missing"}})
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo"), "caller": "shop"}}
        await hosts.start("host-a", **hosts.peers(b=["echo"]), upstreams=upstreams, **access_of(hosts))
        await hosts.call().rest()
        await until(lambda: lines(path), "the line")
        [line] = lines(path)
        assert (line["event"], line["reason"], line["detail"]) == ("ended", "connect_failed", "by host-b")
        assert (line["caller"], line["open_ms"], line["tries"], line["peer"]) == ("shop", None, 1, "host-b")


async def test_a_stream_within_a_host() -> None:
    async with mesh() as hosts:
        path = hosts.folder / "access.log"
        service = hosts.service()
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo")}}
        services = {"echo": {"deliver": service.address}}
        await hosts.start("host-a", upstreams=upstreams, services=services, **access_of(hosts))
        caller = hosts.call()
        await caller.send(b"hello")
        accepted = await service.accept()
        assert await accepted.read(5) == b"hello"
        caller.close()
        accepted.close()
        await until(lambda: len(lines(path)) == 2, "the lines")
        opened, ended = lines(path)
        assert (opened["direction"], opened["peer"], opened["link"], opened["id"]) == ("local", None, None, None)
        assert (ended["sent"], ended["received"], ended["tries"]) == (5, 0, 1)
        assert ended["first_byte_ms"] is None


async def test_what_is_open_at_the_end_has_a_last_line() -> None:
    async with mesh() as hosts:
        service = await hosts.pair(**access_of(hosts, events=["ended"]))
        caller = hosts.call()
        await caller.send(b"hello")
        await (await service.accept()).read(5)
        for host in ("host-a", "host-b"):
            hosts.agents[host]._stop(0.0)
        path = hosts.folder / "access.log"
        await until(lambda: len(lines(path)) == 2, "both ends")


async def test_settings_change_while_it_runs_and_the_file_does_not() -> None:
    async with mesh() as hosts:
        service = await hosts.pair(**access_of(hosts))
        agent = hosts.agents["host-a"]
        caller = hosts.call()
        await caller.send(b"hello")
        await (await service.accept()).read(5)
        config = agent.config
        agent.apply(msgspec.structs.replace(config, access=msgspec.structs.replace(config.access, only="failed")))
        path = hosts.folder / "access.log"
        caller.close()
        await until(lambda: not agent.stats.open, "the end")
        agent.access.look() if agent.access else pytest.fail("there is one")
        await until(lambda: len(lines(path)) == 3, "what host-b says")
        assert [line["event"] for line in lines(path) if line["direction"] == "outbound"] == ["opened"]
