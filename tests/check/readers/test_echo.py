from __future__ import annotations

import select
import socket
import time
from types import SimpleNamespace

import pytest

from proxy.check.readers import echo as module
from proxy.check.readers.echo import EchoProbe, PacketTooBig, open_echo
from proxy.check.report import Unchecked
from proxy.demo import netns
from tests.check.ground import Ground, check, unseen
from tests.tools.nobody import as_nobody
from tests.tools.sockets import PATIENCE

pytestmark = pytest.mark.netns


def opened(ground: Ground, address: str) -> EchoProbe:
    with netns.entered(ground.here):
        echo = open_echo(address)
    assert not isinstance(echo, Unchecked)
    return echo


@pytest.mark.parametrize("ping_sockets", [True, False], ids=["ping socket", "raw socket"])
@pytest.mark.parametrize("address", ["10.77.0.2", "fd00::2"])
def test_sizes(ground: Ground, address: str, ping_sockets: bool) -> None:
    for name, number in ((ground.here, 1), (ground.there, 2)):
        ground.ip(name, f"address add fd00::{number}/64 dev eth0 nodad")
    if ping_sockets:
        ground.run(ground.here, "echo 0 2147483647 > /proc/sys/net/ipv4/ping_group_range")
    with opened(ground, address) as echo:
        assert echo.ask(echo.header_bytes) is True
        assert echo.ask(1499) is True
        assert echo.ask(1500) is True
        assert isinstance(echo.ask(1501), PacketTooBig)
        assert echo.ask(100) is True


def test_nobody_answers(ground: Ground) -> None:
    ground.run(ground.there, "echo 1 > /proc/sys/net/ipv4/icmp_echo_ignore_all")
    with opened(ground, "10.77.0.2") as echo:
        assert echo.ask(100) is False


def test_an_answer_that_is_read_late_counts(ground: Ground) -> None:
    """The kernel had it in time; this process had no core."""
    with opened(ground, "10.77.0.2") as echo:
        echo._socket.sendto(echo._request(100), ("10.77.0.2", 0))
        select.select([echo._socket], [], [], PATIENCE)
        assert echo._answer(time.monotonic() - 1) is True
        assert echo._answer(time.monotonic() - 1) is None


def test_an_answer_that_is_read_late_makes_no_other_wait_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else one pause of this process would make each packet that is lost cost many times as long."""
    sent: list[bytes] = []
    sock = SimpleNamespace(family=socket.AF_INET, settimeout=lambda left: None)
    sock.sendto = lambda packet, to: sent.append(packet)
    sock.recv = lambda most: b"\0" + sent[-1][1:]
    probe = EchoProbe("10.77.0.2", sock, False)  # type: ignore[arg-type]
    # When it asks, what it has left, when it has its answer: at once, and then 100 s later.
    times = iter([0.0, 0.0, 0.0, 1.0, 1.0, 101.0])
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(times)))
    assert probe.ask(100) is True
    patience = probe._patience
    assert probe.ask(100) is True
    assert probe._patience == patience == module.REPLY_S


def test_a_router_speaks(ground: Ground) -> None:
    peer = ground.add("peer")
    ground.cable(ground.there, "eth1", peer, "eth0")
    ground.ip(ground.there, "address add 10.66.0.1/24 dev eth1", "link set eth1 mtu 1400")
    ground.ip(peer, "address add 10.66.0.2/24 dev eth0", "link set eth0 mtu 1400", "route add default via 10.66.0.1")
    ground.run(ground.there, "echo 1 > /proc/sys/net/ipv4/ip_forward")
    ground.ip(ground.here, "route add 10.66.0.0/24 via 10.77.0.2")
    with opened(ground, "10.66.0.2") as echo:
        assert echo.ask(1400) is True
        assert echo.ask(1401) == PacketTooBig(1400, "10.77.0.2")
        assert echo.ask(1400) is True


@pytest.mark.nobody
def test_no_right_to_send_any(ground: Ground) -> None:
    config = ground.readable(ground.config())
    report = check(netns.inside(ground.here, as_nobody()), config)
    assert "path MTU to 10.77.0.2: no right to send echo requests; ask as root" in unseen(report)
