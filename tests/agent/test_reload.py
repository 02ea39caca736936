"""The file, read again while the proxy runs: by a signal, by the command's request, and with everything wrong in it."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from control.base.system.notify import VARIABLE
from proxy.agent import reload
from proxy.agent.agent import Agent
from proxy.config.schema import Config, load
from tests.pump.agents import Mesh, mesh
from tests.pump.rig import until


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as entries:
        yield entries


class File:
    """The configuration of host-a, as the test writes it."""

    def __init__(self, hosts: Mesh) -> None:
        self.path = hosts.folder / "host-a.yaml"
        self._hosts = hosts
        self.base = {
            "host": "host-a",
            "run_dir": f"{hosts.folder}/host-a",
            "socket_dir": f"{hosts.folder}/host-a-services",
            "links": {"listen": hosts.addresses["host-a"], "security": "none"},
        }
        self.write()

    def write(self, text: str = "", **sections: Any) -> None:
        self.path.write_text(text or json.dumps({**self.base, **sections}, indent=1))


async def started(hosts: Mesh) -> tuple[Agent, File]:
    file = File(hosts)
    hosts.agents["host-a"] = agent = Agent(load(file.path), str(file.path))
    await hosts.run("host-a")
    return agent, file


async def test_a_dry_run_changes_nothing() -> None:
    async with mesh() as hosts:
        agent, file = await started(hosts)
        file.write(peers={"host-b": {"address": hosts.addresses["host-b"]}}, limits={"stop_timeout": "3s"})
        before = agent.config
        answer = await agent.reload(dry_run=True)
        assert (answer.outcome, answer.changes) == ("possible", ["peers.host-b: added", "limits.stop_timeout: 5 → 3"])
        assert agent.config is before
        file.write(mesh="other")
        answer = await agent.reload(dry_run=True)
        assert answer.outcome == "refused"
        assert "mesh: found other, running with hostlane" in answer.problems[0]
        file.write("host: A")
        assert (await agent.reload(dry_run=True)).outcome == "wrong"


async def test_what_is_new_in_the_file_holds(logs: list[MutableMapping[str, Any]]) -> None:
    async with mesh() as hosts:
        agent, file = await started(hosts)
        file.write(peers={"host-b": {"address": hosts.addresses["host-b"]}}, limits={"stop_timeout": "3s"})
        answer = await agent.reload()
        assert (answer.outcome, answer.problems) == ("applied", [])
        assert answer.changes == ["peers.host-b: added", "limits.stop_timeout: 5 → 3"]
        assert list(agent.pools) == ["host-b"]
        [line] = [entry for entry in logs if entry["event"] == "configuration applied"]
        assert line["changes"] == answer.changes
        assert (await agent.reload()).changes == []


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (
            "host: A\nlinks: {listen: 127.0.0.1}\nlimts: {}\n",
            ["{file}:1: host: ", "{file}:2: links", "{file}:3: limts"],
        ),
        ("host: [\n", ["{file}:2: "]),
        ("\n", ["{file}:1: found an empty file"]),
    ],
    ids=["keys", "yaml", "empty"],
)
async def test_a_wrong_file_changes_nothing(
    text: str, problems: list[str], logs: list[MutableMapping[str, Any]]
) -> None:
    async with mesh() as hosts:
        agent, file = await started(hosts)
        before = agent.config
        file.write(text)
        answer = await agent.reload()
        assert (answer.outcome, answer.changes) == ("wrong", [])
        for problem in problems:
            assert any(line.startswith(problem.format(file=file.path)) for line in answer.problems), answer.problems
        assert agent.config is before
        assert [entry["problems"] for entry in logs if entry["event"] == "configuration not applied"] == [
            answer.problems
        ]


async def test_a_file_that_is_gone() -> None:
    async with mesh() as hosts:
        agent, file = await started(hosts)
        file.path.unlink()
        answer = await agent.reload()
        assert (answer.outcome, answer.problems) == ("wrong", [f"{file.path}: no such file"])


async def test_what_a_running_proxy_cannot_follow() -> None:
    async with mesh() as hosts:
        agent, file = await started(hosts)
        before = agent.config
        file.write(mesh="other", peers={"host-b": {"address": hosts.addresses["host-b"]}})
        answer = await agent.reload()
        assert answer.outcome == "refused"
        assert [line.partition(";")[0] for line in answer.problems] == ["mesh: found other, running with hostlane"]
        assert (agent.config, list(agent.pools)) == (before, [])


async def test_without_a_file() -> None:
    async with mesh() as hosts:
        answer = await (await hosts.start("host-a")).reload()
        assert (answer.outcome, answer.problems) == ("refused", ["the proxy was not started from a file"])


async def test_not_while_it_stops(tmp_path: Path) -> None:
    async with mesh() as hosts:
        service = await hosts.pair()
        agent = hosts.agents["host-b"]
        hosts.call()
        accepted = await service.accept()
        agent.draining.begin(20)
        file = File(hosts)
        agent.reload._file = str(file.path)
        assert (await agent.reload()).problems == ["the proxy is about to stop: it takes no configuration any more"]
        accepted.close()


async def test_sighup(logs: list[MutableMapping[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with mesh() as hosts:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.bind(f"{tmp_path}/notify")
            monkeypatch.setenv(VARIABLE, f"{tmp_path}/notify")
            agent, file = await started(hosts)
            assert told.recv(100) == b"READY=1"
            file.write(limits={"stop_timeout": "3s"})
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: agent.config.limits.stop_timeout == 3, "the signal")
            await until(lambda: [entry for entry in logs if entry["event"] == "configuration applied"], "a line")
            assert told.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert told.recv(100) == b"READY=1"
            file.write("x")
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: [entry for entry in logs if entry["event"] == "configuration not applied"], "a line")
            assert agent.config.limits.stop_timeout == 3


async def test_signals_that_come_while_one_is_under_way_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many: the one that waits reads the file when all of them have come."""
    async with mesh() as hosts:
        agent, file = await started(hosts)
        loads, go = 0, threading.Event()

        def slow(path: str) -> Config:
            nonlocal loads
            loads += 1
            assert go.wait(20)
            return load(path)

        monkeypatch.setattr(reload, "load", slow)
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: loads == 1, "the first one")
        for _ in range(50):
            os.kill(os.getpid(), signal.SIGHUP)
            await trio.testing.wait_all_tasks_blocked()
        file.write(limits={"stop_timeout": "3s"})
        go.set()
        await until(lambda: agent.config.limits.stop_timeout == 3, "the signals")
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert loads == 2


async def test_one_at_a_time() -> None:
    async with mesh() as hosts:
        agent, file = await started(hosts)
        file.write(limits={"stop_timeout": "3s"})
        found: list[list[str]] = []

        async def reload() -> None:
            found.append((await agent.reload()).changes)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(reload)
        assert sorted(map(len, found)) == [0, 0, 1]
