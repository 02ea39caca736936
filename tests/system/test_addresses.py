"""Hosts whose link addresses the control plane leases: real interfaces, links on them, containers beside them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pytest

from proxy.demo import netns
from proxy.demo.lab import CABLE, Lab, LabHost
from tests.system.fleet import CONTROL_PORT, Control
from tests.system.world import ask, hostlane
from tests.tools.process import Proxy
from tests.tools.servers import Echo
from tests.tools.sockets import connect, eventually

pytestmark = [pytest.mark.netns, pytest.mark.failure(13)]

POOL = "10.79.0.0/28"


class Mesh:
    """A control server with a pool, and hosts that get their addresses from it: host-1 and host-3 on the lab's host a,
    host-2 on b. The control plane is reached through another network than the links'.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.folder = Path(tempfile.mkdtemp(prefix="hl-"))
        self.control = Control(self.folder / "control.yaml", host=lab.a)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, self.folder)
            config = {
                "name": "control-1",
                "listen": f"{self.lab.a.address}:{CONTROL_PORT}",
                "run_dir": str(self.folder / "control-run"),
                "state_dir": str(self.folder / "control"),
                "store": {"sqlite": {"path": str(self.folder / "control" / "store.db")}},
                "segments": {"lan": {"pool": POOL, "reserved": ["10.79.0.1"]}},
                "log": {"format": "json"},
            }
            (self.folder / "control.yaml").write_text(json.dumps(config))
            made = hostlane("control", "init", "--config", str(self.folder / "control.yaml"), host=self.lab.a)
            assert made.returncode == 0, made.stderr
            stack.enter_context(self.control)
            self.control.ready()
            for host in self.lab.hosts:
                stack.callback(netns.run, host.command(["sh", "-c", "ip link del hl0; ip link del hl3; true"]))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def host(self, number: int) -> LabHost:
        return self.lab.b if number == 2 else self.lab.a

    def proxy(self, number: int, links: dict[str, Any], interfaces: dict[str, Any], **more: Any) -> Proxy:
        """A host with a token, not started."""
        folder = self.folder / str(number)
        folder.mkdir(exist_ok=True)
        control = str(self.folder / "control.yaml")
        made = hostlane("token", "create", "--host", f"host-{number}", "--config", control, host=self.lab.a)
        assert made.returncode == 0, made.stderr
        (folder / "token").write_text(made.stdout)
        config = {
            "host": f"host-{number}",
            "run_dir": f"{folder}/run",
            "links": links,
            "interfaces": interfaces,
            "control": {
                "servers": [f"{self.lab.a.address}:{CONTROL_PORT}"],
                "token_file": f"{folder}/token",
                "state_dir": f"{folder}/state",
            },
            "log": {"level": "debug", "format": "json"},
            **more,
        }
        return Proxy(config, folder, host=self.host(number))

    def leased(self, number: int, **more: Any) -> Proxy:
        hl0 = {"parent": CABLE, "addresses": ["auto"]}
        return self.proxy(number, {"address": "auto", "segment": "lan"}, {"hl0": hl0}, **more)

    def ask(self, number: int, what: str) -> Any:
        return ask(self.folder / str(number) / "run" / "admin.sock", what)

    def on(self, number: int) -> tuple[str, str]:
        """Address with prefix length, and MAC, of hl0 as the kernel has them."""
        (link,) = json.loads(netns.run(["ip", "-n", self.host(number).netns, "-j", "address", "show", "dev", "hl0"]))
        (four,) = [each for each in link["addr_info"] if each["family"] == "inet"]
        return f"{four['local']}/{four['prefixlen']}", link["address"]


@pytest.fixture
def mesh(lab: Lab) -> Iterator[Mesh]:
    with Mesh(lab) as made:
        yield made


def offered(mesh: Mesh) -> bool:
    return any("echo" in host["services"] for host in mesh.ask(1, "hosts") if host["name"] == "host-2")


def talk(mesh: Mesh) -> None:
    with connect(mesh.folder / "1" / "echo.sock") as sock:
        sock.sendall(b"hello")
        assert sock.recv(100) == b"hello"


def test_two_hosts_get_addresses_and_a_third_one_is_refused(mesh: Mesh) -> None:
    with ExitStack() as stack:
        place = f"unix:{mesh.folder}/service.sock"
        stack.enter_context(Echo(place))
        one = stack.enter_context(mesh.leased(1, upstreams={"echo": {"listen": f"unix:{mesh.folder}/1/echo.sock"}}))
        two = stack.enter_context(mesh.leased(2, services={"echo": {"deliver": place}}))
        eventually(lambda: offered(mesh), "host-2 is on the map")
        before = mesh.on(1), mesh.on(2)
        assert len({address for address, _ in before}) == len({mac for _, mac in before}) == 2
        assert all(address.startswith("10.79.0.") and address.endswith("/28") for address, _ in before)
        own = [host for host in mesh.ask(1, "hosts") if host["state"] == "here"]
        assert [host["address"] for host in own] == [f"{before[0][0].partition('/')[0]}:7600"]
        talk(mesh)
        again = hostlane("reload", "--config", str(one.file))
        assert (again.returncode, again.stderr) == (0, ""), "the file still says auto, and that is what runs"

        taken = before[0][0]
        hl3 = {"parent": CABLE, "addresses": [taken]}
        third = mesh.proxy(3, {"listen": f"{taken.partition('/')[0]}:7601", "segment": "lan"}, {"hl3": hl3})
        third.start()
        assert third.wait() == 2
        ip = taken.partition("/")[0]
        assert third.text().splitlines()[-1] == (
            f"hostlane: links.listen: address {ip} on segment lan is host host-1's; allowed: an address of its own"
        )
        assert "hl3" not in netns.run(["ip", "-n", mesh.lab.a.netns, "link"]), "nothing was made"

        # A restart, also without the control plane and from nothing, as after a reboot.
        mesh.control.kill()
        for number, proxy in ((1, one), (2, two)):
            proxy.stop()
            netns.run(["ip", "-n", mesh.host(number).netns, "link", "delete", "hl0"])
        two.restart()
        one.restart()
        assert one.events("using the leased address from before")
        assert (mesh.on(1), mesh.on(2)) == before
        assert offered(mesh), "by the map that was on disk"
        talk(mesh)

        # The book comes back empty: what is in use is entered again.
        for path in mesh.folder.glob("control/store.db*"):
            path.unlink()
        mesh.control.restart()
        eventually(lambda: all(mesh.ask(each, "status")["control"]["registered"] for each in (1, 2)), "registered")
        late = mesh.proxy(3, {"listen": f"{ip}:7601", "segment": "lan"}, {"hl3": hl3})
        late.start()
        assert late.wait() == 2
        assert f"address {ip} on segment lan is host host-1's" in late.text()


@pytest.fixture
def container(lab: Lab) -> Iterator[int]:
    """A process of host a in a network namespace of its own."""
    process = lab.a.popen(["sleep", "600"], container=True, stdout=subprocess.DEVNULL)
    eventually(lambda: os.readlink(f"/proc/{process.pid}/exe").endswith("sleep"), "it is there")
    yield process.pid
    process.kill()
    process.wait()


def test_a_container_gets_an_address_and_gives_it_back(mesh: Mesh, container: int) -> None:
    segments = {"lan": {"parent": CABLE, "mac_limit": 8}}
    with mesh.leased(1, segments=segments) as one:
        words = ["--pid", str(container), "--config", str(one.file)]
        auto = ["--parent", CABLE, "--address", "auto", "--name", "hl9"]
        made = hostlane("net", "attach", *words, *auto, host=mesh.lab.a)
        assert made.returncode == 0, made.stderr
        show = ["ip", "-j", "address", "show", "dev", "hl9"]
        (link,) = json.loads(netns.run(mesh.lab.a.command(show, container=True)))
        ip = link["addr_info"][0]["local"]
        assert ip.startswith("10.79.0.")
        assert ip != mesh.on(1)[0].partition("/")[0]

        use = json.loads(hostlane("net", "budget", "--config", str(one.file), "--json", host=mesh.lab.a).stdout)
        assert use[0]["elsewhere"] == 0, "all that the book has is this host's"
        held = mesh.folder / "1" / "state" / "addresses" / f"lan@pid-{container}:hl9"
        assert json.loads(held.read_text())["address"] == f"{ip}/28"

        assert hostlane("net", "detach", *words, host=mesh.lab.a).returncode == 0
        assert not held.exists()
        # Attached again, it is the same: the search for a free address begins at the container's name.
        assert hostlane("net", "attach", *words, *auto, host=mesh.lab.a).returncode == 0
        assert json.loads(held.read_text())["address"] == f"{ip}/28"
        mesh.control.kill()
        kept = hostlane("net", "detach", *words, host=mesh.lab.a)
        assert kept.returncode == 1
        assert kept.stderr.startswith(f"hostlane: pid-{container}: address {ip} is not given back (")
        assert kept.stderr.endswith("; detach again later\n")
        mesh.control.restart()
        assert hostlane("net", "detach", *words, host=mesh.lab.a).returncode == 0
        assert not held.exists()


def test_macs_of_other_hosts_count(mesh: Mesh) -> None:
    segments: dict[str, Any] = {"lan": {"parent": CABLE, "mac_limit": 4}}
    # host-1's own and its parent's; of host-2, these two, and the lab's own macvlan interface.
    over = "segment lan: 5 MACs of 4 would be used, 3 here and 2 by other hosts, as the control plane counts them"
    with mesh.leased(1):
        refused = mesh.leased(2, segments=segments)
        refused.start()
        assert refused.wait() == 2
        assert refused.text().splitlines()[-1] == f"hostlane: {over} (hostlane net plan shows all)"
        plan = hostlane("net", "plan", "--config", str(refused.file), host=mesh.lab.b)
        assert (plan.returncode, plan.stderr) == (1, f"hostlane: {over}\n"), "with the lease that is remembered"

        segments["lan"]["over_limit"] = "warn"
        with mesh.leased(2, segments=segments) as two:
            assert two.events("network", note=over)
            found = hostlane("net", "budget", "--config", str(two.file), host=mesh.lab.b)
            assert found.stdout.splitlines()[1].split() == ["lan", CABLE, "-", "3", "2", "4", "4", "1"]
            assert (found.returncode, found.stderr) == (1, f"hostlane: {over}\n")
