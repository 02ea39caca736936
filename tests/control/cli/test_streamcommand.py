from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from control.api.messages import StreamInfo
from control.cli import streamcommand
from control.cli.streamcommand import select
from tests.control.cli.conftest import Proxy

ONE = StreamInfo(
    id="b/1/3", link="b/1", service="redis", direction="outbound", peer="b", state="open", age_s=1.0, bytes_sent=10,
    bytes_received=2, credit=262144, buffered=0, uid=1000, pid=41,
)  # fmt: skip
STREAMS = [
    ONE,
    replace(ONE, id="b/1/5", age_s=5.0, bytes_sent=1, pid=42),
    replace(ONE, id="c/1/1", service="web", peer="c", state="waiting", uid=0, buffered=9),
]


def run(proxy: Proxy, *arguments: str) -> Result:
    proxy.answers["/streams"] = STREAMS
    return CliRunner().invoke(streamcommand.streams, ["--socket", proxy.path, *arguments])


def ids(proxy: Proxy, *arguments: str) -> list[str]:
    return [stream["id"] for stream in json.loads(run(proxy, "--json", *arguments).stdout)]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ([], ["b/1/3", "b/1/5", "c/1/1"]),
        (["--service", "web"], ["c/1/1"]),
        (["--peer", "b"], ["b/1/3", "b/1/5"]),
        (["--uid", "0"], ["c/1/1"]),
        (["--pid", "42"], ["b/1/5"]),
        (["--state", "waiting", "--peer", "b"], []),
        (["--sort", "age", "--limit", "1"], ["b/1/5"]),
        (["--sort", "sent", "--limit", "2"], ["b/1/3", "c/1/1"]),
    ],
)
def test_filters(proxy: Proxy, arguments: list[str], found: list[str]) -> None:
    assert ids(proxy, *arguments) == found


def test_groups(proxy: Proxy) -> None:
    found = json.loads(run(proxy, "--by", "service", "--by", "uid", "--json").stdout)
    assert [(each["by"], each["streams"], each["bytes_sent"], each["oldest_s"]) for each in found] == [
        ({"service": "redis", "uid": 1000}, 2, 11, 5.0), ({"service": "web", "uid": 0}, 1, 10, 1.0),
    ]  # fmt: skip
    head, first, _ = run(proxy, "--by", "service", "--by", "uid").stdout.splitlines()
    assert head.split()[:3] == ["service", "uid", "streams"]
    assert first.split()[:3] == ["redis", "1000", "2"]
    assert select(STREAMS, by=["peer"], limit=1)[0].streams == 2


def test_who_calls_is_shown(proxy: Proxy) -> None:
    head, first, *_ = run(proxy).stdout.splitlines()
    assert head.split()[6:8] == ["uid", "pid"]
    assert first.split()[6:8] == ["1000", "41"]
