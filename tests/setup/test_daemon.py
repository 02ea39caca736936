"""The proxy's units, and the one that is made for a host."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config.schema import parse
from proxy.setup.daemon import PROXY, SOCKETS, socket_unit
from tests.tools.units import complaints, verify

HOST = "host: a\nlinks: {listen: 10.77.0.1:7600, security: none}\n"


def test_systemd_takes_them_and_finds_them_little_exposed(tmp_path: Path) -> None:
    assert complaints(PROXY, tmp_path) == []


def test_sockets_that_systemd_opens(tmp_path: Path) -> None:
    control = "control: {servers: [10.77.0.9:7601]}\n"
    upstreams = 'upstreams: {redis: {listen: tcp:127.0.0.1:6379}, shop: {listen: "unix:/run/a b/100%.sock"}}\n'
    text = socket_unit(parse(HOST + control + upstreams, "test"))
    assert text is not None
    assert [line for line in text.splitlines() if line.startswith("Listen")] == [
        "ListenStream=127.0.0.1:6379", "ListenStream=/run/a b/100%%.sock",
    ]  # fmt: skip
    (tmp_path / "hostlane.service").write_text("[Service]\nExecStart=/bin/true\n")
    assert verify(tmp_path / SOCKETS, text) == (0, [])


@pytest.mark.parametrize("upstreams", ["", "upstreams: all\n", "services: {redis: {deliver: tcp:127.0.0.1:1}}\n"])
def test_no_sockets_that_systemd_could_open(upstreams: str) -> None:
    assert socket_unit(parse(HOST + upstreams, "test")) is None
