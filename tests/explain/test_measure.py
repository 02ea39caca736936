from __future__ import annotations

from pathlib import Path

import pytest

from proxy.check.report import Unchecked
from proxy.demo import netns
from proxy.explain.account import UnixHop
from proxy.explain.measure import echo_ms, unix_hop
from tests.check.ground import Ground
from tests.tools.sockets import names


def test_a_unix_socket(tmp_path: Path) -> None:
    found = unix_hop(str(tmp_path))
    assert isinstance(found, UnixHop)
    assert found.directory == str(tmp_path)
    assert found.connect_ms > 0
    assert found.round_trip_ms > 0
    assert names(tmp_path) == []


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    """Measured elsewhere, and said so."""
    found = unix_hop(str(tmp_path / "missing"))
    assert isinstance(found, UnixHop)
    assert found.directory != str(tmp_path / "missing")
    assert not Path(found.directory).exists()


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    directory = tmp_path / ("x" * 100)
    directory.mkdir()
    found = unix_hop(str(directory))
    assert isinstance(found, UnixHop)
    assert found.directory != str(directory)


@pytest.mark.netns
def test_a_machine(ground: Ground) -> None:
    with netns.entered(ground.here):
        found = echo_ms("10.77.0.2")
    assert isinstance(found, float)
    assert found > 0


@pytest.mark.netns
def test_a_machine_that_does_not_answer(ground: Ground) -> None:
    ground.run(ground.there, "echo 1 > /proc/sys/net/ipv4/icmp_echo_ignore_all")
    with netns.entered(ground.here):
        assert echo_ms("10.77.0.2") == Unchecked("the round trip to 10.77.0.2", "it answers no echo requests")
        assert echo_ms("10.1.1.1") == Unchecked("the round trip to 10.1.1.1", "network is unreachable")
