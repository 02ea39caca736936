"""The whole demo, small: on two hosts, on loopback, interrupted, and with something missing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from proxy.demo import netns, redis, runner
from proxy.demo.lab import Lab
from proxy.demo.loopback import Loopback
from proxy.demo.paths import DemoPath, Workload
from proxy.demo.processes import DemoError
from tests.tools.documents import block, shape, typed

SMALL = (
    Workload("persistent", persistent=True, requests=2_000, clients=5),
    Workload("new per request", persistent=False, requests=200, clients=5),
)


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The demo's temporary folder goes in here, and must be gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="hl-") as home:  # short, because a Unix socket's path must be
        monkeypatch.setattr(tempfile, "tempdir", home)
        yield Path(home)
        assert list(Path(home).iterdir()) == []


def shown_of(shown: str, command: str) -> list[str]:
    """The lines that are shown under a command, up to an empty one."""
    lines = [line.strip() for line in shown[shown.index(f"    {command}\n") :].splitlines()]
    return lines[1 : lines.index("")]


def not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lab, "missing", staticmethod(lambda: "not root (network namespaces need it)"))


def pages_looked_at(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the pages show while the demo runs, once it has."""
    seen: dict[str, Any] = {}
    show = runner.DemoSetup.show_pages

    def look(self: runner.DemoSetup, stack: ExitStack) -> list[tuple[str, str]]:
        found = show(self, stack)
        for what, url in found:
            with urllib.request.urlopen(f"{url}state.json", timeout=30) as answer:
                seen[what] = json.load(answer)
        return found

    monkeypatch.setattr(runner.DemoSetup, "show_pages", look)
    return seen


@pytest.mark.redis
@pytest.mark.netns
def test_two_hosts(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = pages_looked_at(monkeypatch)
    assert runner.main(SMALL, rounds=1) == 0
    assert seen["the mesh"]["mesh"] == "hostlane"
    assert [seen[host]["host"] for host in ("host-a", "host-b")] == ["host-a", "host-b"]
    assert [host["name"] for host in seen["the mesh"]["hosts"]] == ["host-a", "host-b"]
    shown = capsys.readouterr().out
    assert "Byte-exact: 1 MiB" in shown
    assert "peers:" not in shown
    pages = re.findall(r"http://127\.0\.0\.1:\d+/  (.*)", shown)
    assert pages == ["the mesh", "host-a", "host-b"]
    in_readme = list(typed(block("README.md", "host-a$ hostlane control init --config")))
    assert [line for line in in_readme if f"    {line.host}$ {line.line}\n" not in shown] == []
    assert shape("\n".join(shown_of(shown, "host-a$ hostlane hosts --config control.yaml"))) == shape(
        in_readme[-1].printed
    )
    assert shown_of(shown, "host-a$ hostlane control init --config control.yaml")[0].startswith("CA ")
    assert shown_of(shown, "host-a$ hostlane hosts --config control.yaml")[1:] == [
        "host-a  10.77.0.1:7600  0.1.0           0  -",
        "host-b  10.77.0.2:7600  0.1.0           1  redis",
    ]
    assert shown_of(shown, "host-a$ hostlane services --config control.yaml")[1:] == ["redis        1  host-b"]
    for number in (1, 2):
        host = f"host-{'ab'[number - 1]}"
        made = shown_of(shown, f"{host}$ hostlane net apply --config {host}.yaml")
        assert made[0].startswith("mv0: create macvlan on cable0, mode bridge, mac ")
        assert made[1:] == [f"mv0: mark as hostlane:{host}:mv0", "mv0: set up", f"mv0: add address 10.77.0.{number}/24"]
    assert "      mv0: {parent: cable0, addresses: [10.77.0.1/24]}" in shown, "a reader sees what it is made from"
    explained = shown[shown.index("$ hostlane explain redis") :]
    for layer in ("bridge docker0", "connections tracked", "macvlan mv0", "handshakes avoided"):
        assert layer in explained
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if line.startswith("│")]
    assert [row[0] for row in rows] == ["Hostlane, Unix socket", "direct, bridge + NAT", "direct, macvlan"] * 2
    new_per_request = rows[3]
    assert int(new_per_request[5].replace(",", "")) >= 200, "every request after the first link was a handshake avoided"
    assert all(row[5] == "-" for row in rows if row[0].startswith("direct"))


@pytest.mark.redis
def test_loopback_says_what_it_left_out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    not_root(monkeypatch)
    assert runner.main(SMALL, rounds=1) == 0
    shown = capsys.readouterr().out
    assert "Why not two of their own: not root" in shown
    assert "Left out: the macvlan link" in shown
    assert "net apply" not in shown
    assert shown_of(shown, "host-a$ hostlane services --config control.yaml")[1:] == ["redis        1  host-b"]
    assert "Byte-exact" in shown
    assert "direct, loopback TCP" in shown
    assert "bridge + NAT" not in shown.partition("Redis on host B, called")[2]


def test_missing_redis_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(redis, "missing", lambda: "redis-server is not installed")
    assert runner.main() == 1
    assert capsys.readouterr() == ("", "hostlane demo: redis-server is not installed\n")


@pytest.mark.parametrize("broken", ["start", "prove", "check"])
@pytest.mark.redis
def test_a_failure_is_one_line(
    broken: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(self: object) -> None:
        raise DemoError("the proxy of host-a ended (SIGKILL): it wrote nothing")

    not_root(monkeypatch)
    monkeypatch.setattr(runner.DemoSetup, broken, fail)
    assert runner.main(SMALL, rounds=1) == 1
    assert capsys.readouterr().err == "hostlane demo: the proxy of host-a ended (SIGKILL): it wrote nothing\n"


@pytest.mark.redis
@pytest.mark.netns
@pytest.mark.parametrize(
    ("number", "code", "when"),
    [
        (signal.SIGINT, 130, "Two hosts"),
        (signal.SIGINT, 130, "    host-b$ hostlane net apply"),
        (signal.SIGINT, 130, "    host-a$ hostlane control init"),
        (signal.SIGHUP, 129, "    host-b$ hostlane proxy"),
        (signal.SIGINT, 130, "Byte-exact"),
        (signal.SIGTERM, 143, "Byte-exact"),
    ],
)
def test_a_signal_leaves_nothing(number: signal.Signals, code: int, when: str, folder: Path) -> None:
    script = f"import sys, tempfile; tempfile.tempdir = {str(folder)!r}; from proxy.demo import runner; "
    long = "kinds = [runner.Workload('persistent', True, 1_000_000_000)]; sys.exit(runner.main(kinds))"
    # Under nohup these tests have SIGHUP ignored, and what they start inherits it; the demo then rightly leaves it so.
    argv = ["env", "--default-signal", sys.executable, "-u", "-c", script + long]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        until_then = any(line.startswith(when) for line in demo.stdout)
        demo.send_signal(number)
        _, complaint = demo.communicate(timeout=60)
    assert until_then, complaint
    assert (demo.returncode, complaint.count("\n")) == (code, 1)
    assert "all it had started is gone" in complaint
    assert f"-{demo.pid}-" not in netns.run(["ip", "netns", "list"])
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.redis
def test_the_second_signal_does_not_disturb_the_cleaning_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = []

    class Interrupting(Loopback):
        def __exit__(self, *error: Any) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            super().__exit__(*error)
            ended.append(self)

    def interrupted(self: object) -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        return "never shown"

    not_root(monkeypatch)
    monkeypatch.setattr(runner, "Loopback", Interrupting)
    monkeypatch.setattr(runner.DemoSetup, "prove", interrupted)
    before = signal.getsignal(signal.SIGINT)
    assert runner.main(SMALL, rounds=1) == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "hostlane demo: terminated; all it had started is gone\n"
    assert len(ended) == 1
    assert signal.getsignal(signal.SIGINT) is before


class FakeStage:
    """Two ways, the first through the mesh; every look finds ten more handshakes avoided."""

    def __init__(self) -> None:
        machine = Loopback()
        self.ways = [DemoPath("mesh", machine.a, (), "", through_mesh=True), DemoPath("direct", machine.a, (), "")]
        self.avoided = 0
        self.dead: str | None = None

    def check(self) -> None:
        if self.dead is not None:
            raise DemoError(self.dead)

    def handshakes_avoided(self) -> int:
        self.avoided += 10
        return self.avoided


def fake_stage() -> Any:
    return FakeStage()


def test_rounds_are_interleaved_and_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[tuple[str, str]] = []

    def measure(way: DemoPath, kind: Workload) -> tuple[redis.BenchmarkRun, int | None]:
        order.append((way.name, kind.name))
        return redis.BenchmarkRun(len(order), 1, 1), 7

    monkeypatch.setattr(runner, "measure", measure)
    rows = runner.run_rounds(fake_stage(), SMALL, rounds=2, deadline=time.monotonic() + 60)
    first_round = [(way, kind.name) for kind in SMALL for way in ("mesh", "direct")]
    assert order == first_round * 2
    assert [row.handshakes_avoided for row in rows] == [20, None, 20, None]
    assert [run.requests_per_s for run in rows[1].runs] == [2, 6]


def test_no_round_begins_after_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "measure", lambda way, kind: (redis.BenchmarkRun(1, 1, 1), None))
    rows = runner.run_rounds(fake_stage(), SMALL, rounds=3, deadline=time.monotonic())
    assert [len(row.runs) for row in rows] == [1, 1, 1, 1]


def test_a_death_is_the_error_not_what_the_run_made_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = fake_stage()

    def measure(way: DemoPath, kind: Workload) -> tuple[redis.BenchmarkRun, int | None]:
        stage.dead = "the proxy of host-a ended"
        raise DemoError("redis-benchmark failed")

    monkeypatch.setattr(runner, "measure", measure)
    with pytest.raises(DemoError, match="the proxy of host-a ended"):
        runner.run_rounds(stage, SMALL, rounds=1, deadline=time.monotonic())
