"""Services that are delivered to an upstream: calls that would go round in circles are cut, and all comes back."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.demo.lab import Lab, LabHost
from proxy.pump.ourselves import MAX_HOPS
from tests.system.world import PORT, ask
from tests.tools.nameserver import NameServer, asked_by
from tests.tools.process import Proxy
from tests.tools.servers import Echo
from tests.tools.sockets import connect, count_fds, ending_of, eventually, exchange

pytestmark = [pytest.mark.netns, pytest.mark.failure("28")]

RING, OTHER = 18081, 18082


class Hosts:
    """Two proxies; what they offer and call is the test's."""

    def __init__(self, lab: Lab, folder: Path, sections: Mapping[str, Mapping[str, Any]]) -> None:
        self.folder = folder
        self.a = self._proxy("a", lab.a, lab.b, sections)
        self.b = self._proxy("b", lab.b, lab.a, sections)

    def _proxy(self, side: str, host: LabHost, other: LabHost, sections: Mapping[str, Mapping[str, Any]]) -> Proxy:
        folder = self.folder / side
        folder.mkdir()
        offered = list(sections["a" if side == "b" else "b"].get("services", {}))
        config = {
            "host": host.name,
            "run_dir": f"{folder}/run",
            "links": {"listen": f"{host.address}:{PORT}", "security": "none"},
            "peers": {other.name: {"address": f"{other.address}:{PORT}", "services": offered}},
            "log": {"level": "debug", "format": "json"},
            **sections[side],
        }
        return Proxy(config, folder, host=host)

    def status(self, side: str) -> Any:
        return ask(self.folder / side / "run" / "admin.sock", "status")

    def all_over(self) -> bool:
        return self.status("a")["streams"] == self.status("b")["streams"] == 0

    def loops(self) -> int:
        return len([*self.a.events("stream ended", reason="loop"), *self.b.events("stream ended", reason="loop")])


@contextmanager
def running(lab: Lab, folder: Path, **sections: Mapping[str, Any]) -> Iterator[Hosts]:
    hosts = Hosts(lab, folder, sections)
    with hosts.b, hosts.a:
        yield hosts


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="hl-"))
    yield path
    shutil.rmtree(path)


def cut(hosts: Hosts, address: str, sock: socket.socket | None, rounds: int) -> None:
    """One call comes to its end, with the reason, after a few rounds, and leaves nothing behind."""
    before = {side: count_fds(proxy.pid) for side, proxy in (("a", hosts.a), ("b", hosts.b))}
    assert ending_of(lambda: connect(address, sock)).received == b""
    eventually(hosts.all_over, "no stream is left")
    assert hosts.loops() >= 1
    assert hosts.status("a")["streams_opened"] + hosts.status("b")["streams_opened"] <= rounds
    now = {"a": hosts.a, "b": hosts.b}
    eventually(lambda: all(count_fds(now[side].pid) <= before[side] + 2 for side in now), "descriptors are back")


def test_a_name_that_turns_out_to_be_this_machine(lab: Lab, folder: Path) -> None:
    with ExitStack() as stack:
        stack.enter_context(asked_by(lab.b.netns))
        stack.enter_context(NameServer(lab.b.socket(kind=socket.SOCK_DGRAM), {"ring.test": ["127.0.0.1"]}))
        ring = {"deliver": f"tcp:ring.test:{RING}"}
        b = {"upstreams": {"s": {"listen": f"tcp:0.0.0.0:{RING}"}}, "services": {"s": ring}}
        hosts = stack.enter_context(running(lab, folder, a={}, b=b))
        cut(hosts, f"tcp:127.0.0.1:{RING}", lab.b.socket(), 3 * MAX_HOPS)


def test_a_socket_that_is_linked_to_an_upstream_later(lab: Lab, folder: Path) -> None:
    ring = {"deliver": f"unix:{folder}/alias.sock"}
    b = {"upstreams": {"s": {"listen": f"unix:{folder}/s.sock"}}, "services": {"s": ring}}
    with running(lab, folder, a={}, b=b) as hosts:
        (folder / "alias.sock").symlink_to("s.sock")
        cut(hosts, f"unix:{folder}/s.sock", None, 3 * MAX_HOPS)


def test_over_another_host_and_back_through_unix_sockets(lab: Lab, folder: Path) -> None:
    """Each host delivers to an upstream of its own, for what the other one offers: neither sees a circle by itself."""
    a = {
        "upstreams": {"s": {"listen": f"unix:{folder}/s.sock"}},
        "services": {"t": {"deliver": f"unix:{folder}/to-s.sock"}},
    }
    b = {
        "upstreams": {"t": {"listen": f"unix:{folder}/t.sock"}},
        "services": {"s": {"deliver": f"unix:{folder}/to-t.sock"}},
    }
    with running(lab, folder, a=a, b=b) as hosts:
        (folder / "to-s.sock").symlink_to("s.sock")
        (folder / "to-t.sock").symlink_to("t.sock")
        cut(hosts, f"unix:{folder}/s.sock", None, 6 * MAX_HOPS)


def test_over_another_host_and_back_through_tcp(lab: Lab, folder: Path) -> None:
    with ExitStack() as stack:
        for host, name in ((lab.a, "to-s.test"), (lab.b, "to-t.test")):
            stack.enter_context(asked_by(host.netns))
            stack.enter_context(NameServer(host.socket(kind=socket.SOCK_DGRAM), {name: ["127.0.0.1"]}))
        a = {
            "upstreams": {"s": {"listen": f"tcp:0.0.0.0:{RING}"}},
            "services": {"t": {"deliver": f"tcp:to-s.test:{RING}"}},
        }
        b = {
            "upstreams": {"t": {"listen": f"tcp:0.0.0.0:{OTHER}"}},
            "services": {"s": {"deliver": f"tcp:to-t.test:{OTHER}"}},
        }
        hosts = stack.enter_context(running(lab, folder, a=a, b=b))
        cut(hosts, f"tcp:127.0.0.1:{RING}", lab.a.socket(), 6 * MAX_HOPS)


def test_straight_to_an_upstream_of_another_host(lab: Lab, folder: Path) -> None:
    """host-a delivers to host-b's upstream, which is for what host-a offers. Nothing in either file shows it."""
    a = {"services": {"s": {"deliver": f"tcp:{lab.b.address}:{RING}"}}}
    b = {"upstreams": {"s": {"listen": f"tcp:0.0.0.0:{RING}"}}}
    with running(lab, folder, a=a, b=b) as hosts:
        cut(hosts, f"tcp:127.0.0.1:{RING}", lab.b.socket(), 6 * MAX_HOPS)


def test_a_chain_that_is_no_circle_is_served(lab: Lab, folder: Path) -> None:
    """What host-b offers as s is an upstream of its own: for t, which host-a offers, and a real service."""
    with Echo(f"unix:{folder}/echo.sock"):
        a = {
            "upstreams": {"s": {"listen": f"unix:{folder}/s.sock"}},
            "services": {"t": {"deliver": f"unix:{folder}/echo.sock"}},
        }
        b = {
            "upstreams": {"t": {"listen": f"unix:{folder}/t.sock"}},
            "services": {"s": {"deliver": f"unix:{folder}/to-t.sock"}},
        }
        with running(lab, folder, a=a, b=b) as hosts:
            (folder / "to-t.sock").symlink_to("t.sock")
            with ExitStack() as stack:
                for _ in range(20):
                    exchange(stack.enter_context(connect(f"unix:{folder}/s.sock")), b"hello")
            eventually(hosts.all_over, "the end")
            assert hosts.loops() == 0


def test_status_names_the_busiest_source(lab: Lab, folder: Path) -> None:
    """Here the test, which is what a circle through another program would look like."""
    with Echo(f"unix:{folder}/echo.sock"), ExitStack() as stack:
        a = {"upstreams": {"s": {"listen": f"unix:{folder}/s.sock"}}}
        b = {"services": {"s": {"deliver": f"unix:{folder}/echo.sock"}}}
        hosts = stack.enter_context(running(lab, folder, a=a, b=b))
        for _ in range(5):
            exchange(stack.enter_context(connect(f"unix:{folder}/s.sock")), b"hello")
        source = hosts.status("a")["busiest"]
        assert (source["service"], source["streams"]) == ("s", 5)
        assert hosts.status("b")["busiest"] is None
