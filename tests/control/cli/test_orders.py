"""``hostlane reload | drain``, against answers and against a proxy that is not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from control.api.messages import DrainProgress, ReloadResult, StreamHolder
from control.cli import orders


def run(command: Any, *arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def lines(*found: DrainProgress) -> bytes:
    return b"".join(msgspec.json.encode(each) + b"\n" for each in found)


HOLDER = StreamHolder(service="redis", direction="outbound", peer="host-b", uid=1000, pid=4711, streams=2)
OPEN = DrainProgress(left_s=9.0, streams=2, cut=0, over=False, holders=[HOLDER])
DONE = DrainProgress(left_s=3.0, streams=0, cut=0, over=True, holders=[])


@pytest.mark.parametrize(
    ("answer", "code", "out", "err"),
    [
        (ReloadResult(outcome="applied", changes=["a: 1 → 2", "b: added"]), 0, "a: 1 → 2\nb: added\n", ""),
        (ReloadResult(outcome="applied"), 0, "nothing has changed\n", ""),
        (ReloadResult(outcome="wrong", problems=["f:1: host: x", "f:2: y"]), 2, "", "f:1: host: x\nf:2: y\n"),
        (ReloadResult(outcome="refused", problems=["mesh: \x1b"]), 1, "", "mesh: \\x1b\n"),
    ],
)
def test_reload(answering: Callable[..., str], answer: ReloadResult, code: int, out: str, err: str) -> None:
    place = answering(msgspec.json.encode(answer))
    done = run(orders.reload, "--socket", place)
    assert (done.exit_code, done.stdout, done.stderr) == (code, out, err)
    done = run(orders.reload, "--socket", place, "--json")
    assert (done.exit_code, msgspec.json.decode(done.stdout, type=ReloadResult), done.stderr) == (code, answer, err)


def test_drain(answering: Callable[..., str]) -> None:
    done = run(orders.drain, "--socket", answering(lines(OPEN, DONE)))
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "2 streams open, 0 cut, 9 s left"
    assert done.stdout.splitlines()[2].split() == ["redis", "outbound", "host-b", "1000", "4711", "2"]
    assert done.stdout.splitlines()[-1] == "drained; no stream was cut"


def test_drain_that_cut_streams(answering: Callable[..., str]) -> None:
    cut = msgspec.structs.replace(DONE, cut=2)
    done = run(orders.drain, "--now", "--json", "--socket", answering(lines(cut)))
    assert done.exit_code == 1
    assert json.loads(done.stdout)["cut"] == 2
    assert run(orders.drain, "--socket", answering(lines(cut))).stdout == "drained; 2 streams were cut\n"


def test_a_proxy_that_is_gone_too_early(answering: Callable[..., str]) -> None:
    done = run(orders.drain, "--socket", answering(lines(OPEN)))
    assert (done.exit_code, done.stderr) == (1, "hostlane: the proxy was gone before it had drained\n")


def test_a_proxy_of_another_kind(answering: Callable[..., str]) -> None:
    place = answering(b"[]\n")
    for command in (orders.drain, orders.reload):
        done = run(command, "--socket", place)
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr == f"hostlane: {place}: the answer is not one of a Hostlane proxy of this version\n"


def test_a_proxy_that_refuses(answering: Callable[..., str]) -> None:
    place = answering(b'{"error": "no"}', status=405)
    for command in (orders.drain, orders.reload):
        assert run(command, "--socket", place).stderr == f"hostlane: {place}: the proxy refused: no\n"


@pytest.mark.parametrize("command", [orders.reload, orders.drain])
def test_no_proxy_is_one_line(tmp_path: Path, command: Any) -> None:
    done = run(command, "--socket", str(tmp_path / "x.sock"))
    line = f"hostlane: {tmp_path}/x.sock: no such socket; is the proxy running?\n"
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", line)


@pytest.mark.parametrize("value", ["5", "-1s", "25h", "soon", ""])
def test_wrong_times(value: str) -> None:
    done = run(orders.drain, "--timeout", value)
    assert done.exit_code == 2
    assert "is not a duration such as 500ms, 30s, 2m or 1h (at most 24h)" in done.stderr


def test_two_times() -> None:
    done = run(orders.drain, "--timeout", "5s", "--now")
    assert done.exit_code == 2
    assert "use one of them" in done.stderr
