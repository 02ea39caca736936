"""Reaching a service on the proxy's own machine: names, addresses, ports, and whoever vanishes at the end of TCP."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from proxy.demo import netns
from proxy.demo.lab import Lab, LabHost
from tests.system.world import PORT
from tests.tools.nameserver import NameServer, asked_by
from tests.tools.process import Proxy
from tests.tools.servers import Echo
from tests.tools.sockets import connect, ending_of, eventually, exchange, read_to_end, say

pytestmark = pytest.mark.netns

SERVICE = 7800
LOGS = {"log": {"level": "debug", "format": "json"}}


class Pair:
    """host-a calls what host-b offers. ``service``: keys that each service has beside the usual ones."""

    def __init__(
        self, lab: Lab, folder: Path, deliver: Mapping[str, str], more: Mapping[str, Any], service: Mapping[str, Any]
    ) -> None:
        self.lab, self.folder = lab, folder
        for side in "ab":
            (folder / side).mkdir()
        self.a = self._proxy("a", lab.a, lab.b, list(deliver), more)
        usual = {"connect_timeout": "20s", **service}
        services = {name: {"deliver": address, **usual} for name, address in deliver.items()}
        self.b = self._proxy("b", lab.b, lab.a, [], {**more, "services": services})

    def _proxy(self, side: str, host: LabHost, other: LabHost, offered: list[str], more: Mapping[str, Any]) -> Proxy:
        folder = self.folder / side
        config = {
            "host": f"host-{side}",
            "run_dir": f"{folder}/run",
            "links": {"listen": f"{host.address}:{PORT}", "security": "none"},
            "peers": {other.name: {"address": f"{other.address}:{PORT}", "services": offered}},
            "upstreams": {name: {"listen": f"unix:{folder}/{name}.sock"} for name in offered},
            **LOGS,
            **more,
        }
        return Proxy(config, folder, host=host)

    def call(self, name: str = "service") -> socket.socket:
        return connect(f"unix:{self.folder}/a/{name}.sock")

    def ended(self, side: str = "b", **fields: Any) -> list[str]:
        """The details of the streams that ended so."""
        proxy = self.a if side == "a" else self.b
        return [entry["detail"] for entry in proxy.events("stream ended", **fields)]


@contextmanager
def pair(lab: Lab, deliver: Mapping[str, str], service: Mapping[str, Any] | None = None, **more: Any) -> Iterator[Pair]:
    folder = Path(tempfile.mkdtemp(prefix="hl-"))
    try:
        both = Pair(lab, folder, deliver, more, service or {})
        with both.b, both.a:
            yield both
    finally:
        shutil.rmtree(folder)


@contextmanager
def setting(host: LabHost, name: str, value: str) -> Iterator[None]:
    """A setting of the host's network for the block, by its path below /proc/sys/net/."""
    path = f"/proc/sys/net/{name}"
    before = netns.run(netns.inside(host.netns, ["cat", path])).strip()
    netns.run(netns.inside(host.netns, ["tee", path]), stdin=value)
    try:
        yield
    finally:
        netns.run(netns.inside(host.netns, ["tee", path]), stdin=before)


def served(call: socket.socket) -> bool:
    """Whether a call is answered and comes to a clean end, which the caller begins."""
    with call:
        exchange(call, b"hello")
        call.shutdown(socket.SHUT_WR)
        return read_to_end(call) == (b"", False)


def talks(call: socket.socket) -> bool:
    """Whether a call is answered; it stays open then."""
    say(call, b"x")
    with suppress(ConnectionError):
        return call.recv(1) == b"x"
    return False


def reached(both: Pair) -> bool:
    """Whether a call is answered; it may be refused."""
    with both.call() as call:
        return talks(call)


# --------------------------------------------------------------------------------------------------- several addresses


@pytest.fixture
def silent(lab: Lab) -> Iterator[str]:
    """An address on host-b that answers no SYN: its backlog is full."""
    address = ("127.0.0.2", SERVICE)
    with ExitStack() as stack:
        listener = stack.enter_context(lab.b.socket())
        listener.bind(address)
        listener.listen(0)
        for _ in range(3):
            sock = stack.enter_context(lab.b.socket())
            sock.setblocking(False)
            sock.connect_ex(address)
        yield address[0]


@pytest.mark.failure("29")
@pytest.mark.parametrize(
    "addresses",
    [
        ["SILENT", "127.0.0.4"],
        ["127.0.0.3", "127.0.0.4"],
        ["SILENT", "127.0.0.3", "127.0.0.4"],
        ["fd99::1", "SILENT", "127.0.0.4"],
    ],
    ids=", ".join,
)
def test_a_name_is_reached_at_whichever_of_its_addresses_is_alive(lab: Lab, silent: str, addresses: list[str]) -> None:
    """One silent, one on which nobody listens, one of a family that has no way; the last is alive."""
    known = {"service.test": [silent if address == "SILENT" else address for address in addresses]}
    with asked_by(lab.b.netns, hosts=known), Echo(f"tcp:127.0.0.4:{SERVICE}", lab.b.socket()) as echo:
        with pair(lab, {"service": f"tcp:service.test:{SERVICE}"}) as both:
            assert all(served(both.call()) for _ in range(5))
            assert echo.accepted == 5
            assert both.ended(reason="connect_failed") == both.ended(reason="connect_timeout") == []


@pytest.mark.failure("29")
def test_calls_spread_over_the_addresses_of_a_name(lab: Lab) -> None:
    known = {"service.test": ["127.0.0.2", "127.0.0.3", "127.0.0.4"]}
    with ExitStack() as stack:
        stack.enter_context(asked_by(lab.b.netns, hosts=known))
        echoes = [
            stack.enter_context(Echo(f"tcp:{address}:{SERVICE}", lab.b.socket())) for address in known["service.test"]
        ]
        both = stack.enter_context(pair(lab, {"service": f"tcp:service.test:{SERVICE}"}))
        assert all(served(both.call()) for _ in range(9))
        assert [echo.accepted for echo in echoes] == [3, 3, 3]


# -------------------------------------------------------------------------------------------------------------- names


@pytest.mark.failure("29")
def test_names_without_an_answer_hold_up_neither_other_services_nor_reload(lab: Lab) -> None:
    """More of them than there are threads for other work."""
    count = 50
    deliver = {f"silent-{number}": f"tcp:silent-{number}.test:{SERVICE}" for number in range(count)}
    deliver["service"] = f"tcp:service.test:{SERVICE}"
    names = {f"silent-{number}.test": "silent" for number in range(count)}
    with ExitStack() as stack:
        stack.enter_context(asked_by(lab.b.netns))
        server = stack.enter_context(
            NameServer(lab.b.socket(kind=socket.SOCK_DGRAM), {**names, "service.test": ["127.0.0.1"]})
        )
        stack.enter_context(Echo(f"tcp:127.0.0.1:{SERVICE}", lab.b.socket()))
        both = stack.enter_context(pair(lab, deliver))
        for name in names:
            for _ in range(3):
                stack.enter_context(both.call(name.removesuffix(".test")))
        eventually(lambda: set(names) <= set(server.asked), "every one of them has been asked for")
        assert served(both.call())
        os.kill(both.b.pid, signal.SIGHUP)
        both.b.wait_for("configuration applied")
        assert max(server.asked[name] for name in names) <= 2, "one look-up a name: for IPv4, and for IPv6"


@pytest.mark.failure("29")
@pytest.mark.parametrize("trouble", ["silent", "failure"])
def test_the_last_good_answer_goes_on_while_the_name_service_fails(lab: Lab, trouble: str) -> None:
    with ExitStack() as stack:
        stack.enter_context(asked_by(lab.b.netns))
        sock = lab.b.socket(kind=socket.SOCK_DGRAM)
        server = stack.enter_context(NameServer(sock, {"service.test": ["127.0.0.1"]}))
        stack.enter_context(Echo(f"tcp:127.0.0.1:{SERVICE}", lab.b.socket()))
        both = stack.enter_context(pair(lab, {"service": f"tcp:service.test:{SERVICE}"}))
        assert served(both.call())
        server.names["service.test"] = trouble
        before = server.asked["service.test"]
        eventually(lambda: served(both.call()) and server.asked["service.test"] > before, "it was asked again")
        assert served(both.call())
        both.b.wait_for("a name is not resolved: its last addresses are used", name="service.test")
        assert len(both.b.events("a name is not resolved: its last addresses are used", name="service.test")) == 1


# -------------------------------------------------------------------------------------------------------------- ports


@pytest.mark.failure("29")
def test_a_service_that_is_down_is_not_reached_by_connecting_to_oneself(lab: Lab) -> None:
    """For a while the only port to come from is that of the service, which gets it when it comes back."""
    with pair(lab, {"service": "tcp:127.0.0.1:41000"}) as both:
        with setting(lab.b, "ipv4/ip_local_port_range", "41000 41000"):
            for _ in range(3):
                assert ending_of(both.call).received == b""
            eventually(lambda: len(both.ended(direction="inbound")) == 3, "three ends")
        details = both.ended(direction="inbound", reason="connect_failed")
        assert details == ["nobody listens: the connection had met itself"] * 3
        with Echo("tcp:127.0.0.1:41000", lab.b.socket()):
            assert reached(both)


@pytest.mark.failure("29")
def test_more_calls_than_there_are_source_ports(lab: Lab) -> None:
    """The service is no loopback address; callers say goodbye first, so each port then waits for a minute."""
    calls = 200
    with setting(lab.b, "ipv4/ip_local_port_range", "40000 40031"):
        with Echo(f"tcp:{lab.a.address}:{SERVICE}", lab.a.socket()) as echo:
            with pair(lab, {"service": f"tcp:{lab.a.address}:{SERVICE}"}) as both:
                assert all(served(both.call()) for _ in range(calls))
                assert echo.accepted == calls
                assert both.ended(direction="inbound", reason="local_shortage") == []


@pytest.mark.failure("29")
def test_a_shortage_of_ports_is_told_as_what_it_is_and_held_against_no_service(lab: Lab) -> None:
    with setting(lab.b, "ipv4/ip_local_port_range", "40000 40007"), ExitStack() as stack:
        stack.enter_context(Echo(f"tcp:{lab.a.address}:{SERVICE}", lab.a.socket()))
        both = stack.enter_context(pair(lab, {"service": f"tcp:{lab.a.address}:{SERVICE}"}))
        held = []
        while talks(call := stack.enter_context(both.call())):
            held.append(call)
            assert len(held) <= 8
        for _ in range(10):
            assert ending_of(both.call).received == b""
        eventually(lambda: len(both.ended("a", reason="local_shortage")) >= 10, "all have ended")
        [detail] = set(both.ended(direction="inbound", reason="local_shortage"))
        assert detail == f"this host has no source port left towards {lab.a.address}:{SERVICE}"
        assert both.a.events("host ejected") == []
        held[0].close()
        eventually(lambda: reached(both), "a port is free again, and the host was not left alone")


@pytest.mark.failure("29")
def test_more_calls_at_a_time_than_one_address_has_ports(lab: Lab) -> None:
    """Towards another host, from three addresses, of which one is gone since the proxy was started."""
    source = [lab.b.address, "10.77.0.12", "10.77.0.13"]
    for address in source[1:]:
        netns.run(["ip", "-n", lab.b.netns, "address", "add", f"{address}/24", "dev", "mv0"])
    with setting(lab.b, "ipv4/ip_local_port_range", "40000 40007"), ExitStack() as stack:
        for address in source[1:]:
            gone = ["ip", "-n", lab.b.netns, "address", "delete", f"{address}/24", "dev", "mv0"]
            stack.callback(subprocess.run, gone, check=False, stderr=subprocess.DEVNULL)
        echo = stack.enter_context(Echo(f"tcp:{lab.a.address}:{SERVICE}", lab.a.socket()))
        deliver = {"service": f"tcp:{lab.a.address}:{SERVICE}"}
        both = stack.enter_context(pair(lab, deliver, {"source": source}))
        netns.run(["ip", "-n", lab.b.netns, "address", "delete", "10.77.0.13/24", "dev", "mv0"])
        held = []
        while talks(call := stack.enter_context(both.call())):
            held.append(call)
            assert len(held) <= 16
        assert len(held) > 8, "more than one address has"
        assert echo.accepted == len(held)
        eventually(lambda: len(both.ended(direction="inbound", reason="local_shortage")) > 0, "its line in the log")
        [detail] = set(both.ended(direction="inbound", reason="local_shortage"))
        assert detail == f"this host has no source port left towards {lab.a.address}:{SERVICE}"
        assert both.a.events("host ejected") == []


# -------------------------------------------------------------------------------------------------- who vanishes


def vanish(host: LabHost, port: int) -> None:
    """From now on nothing comes from or to this TCP port of the host, and nobody is told: as when power fails."""
    rules = f"""
    table inet vanished {{
        chain from {{ type filter hook output priority 0; tcp sport {port} drop; }}
        chain to {{ type filter hook input priority 0; tcp dport {port} drop; }}
    }}"""
    netns.run(netns.inside(host.netns, ["nft", "-f", "-"]), stdin=rules)


def come_back(host: LabHost) -> None:
    netns.run(netns.inside(host.netns, ["nft", "delete", "table", "inet", "vanished"]))


QUICK = {"tcp": {"keepalive_idle": "1s", "keepalive_interval": "1s", "keepalive_probes": 2}}


@pytest.mark.failure("29")
def test_a_service_that_has_vanished_is_noticed(lab: Lab) -> None:
    with Echo(f"tcp:{lab.a.address}:{SERVICE}", lab.a.socket()):
        with pair(lab, {"service": f"tcp:{lab.a.address}:{SERVICE}"}, **QUICK) as both, both.call() as call:
            exchange(call, b"hello")
            vanish(lab.a, SERVICE)
            try:
                both.b.wait_for("stream ended", reason="aborted", direction="inbound")
                assert read_to_end(call).received == b""
            finally:
                come_back(lab.a)


@pytest.mark.failure("29")
def test_a_caller_that_has_vanished_is_noticed(lab: Lab) -> None:
    with tempfile.TemporaryDirectory(prefix="hl-") as name, Echo(f"unix:{name}/echo.sock") as echo:
        with pair(lab, {"service": f"unix:{name}/echo.sock"}, **QUICK) as both:
            both.a.stop()
            config = both.a.file.read_text().replace(f"unix:{both.folder}/a/service.sock", f"tcp:{lab.a.address}:7700")
            both.a.file.write_text(config)
            both.a.restart()
            with connect(f"tcp:{lab.a.address}:7700", lab.b.socket()) as call:
                exchange(call, b"hello")
                vanish(lab.b, call.getsockname()[1])
                try:
                    both.a.wait_for("stream ended", reason="aborted", direction="outbound")
                    eventually(lambda: echo.open == 0, "the service is told")
                finally:
                    come_back(lab.b)
