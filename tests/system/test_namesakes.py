"""Two proxies of one name: on one machine, on two machines with a control plane, and in a static mesh."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from proxy.demo.lab import Lab, LabHost
from proxy.demo.mesh import HOSTLANE
from tests.system.fleet import Fleet
from tests.system.talk import Caller
from tests.system.world import PORT, World, add_address, ask, hostlane
from tests.tools.process import Process, Proxy
from tests.tools.sockets import eventually

pytestmark = [pytest.mark.netns, pytest.mark.failure("22")]

OTHER = "10.77.0.9"
WAITS = "another proxy is this host; this one waits until it has gone"


def status(run_dir: Path, host: LabHost | None = None) -> tuple[int, str]:
    """Exit code, and everything that is shown."""
    shown = hostlane("status", "--socket", str(run_dir / "admin.sock"), host=host)
    return shown.returncode, shown.stdout + shown.stderr


def test_in_a_static_mesh_a_peer_tells_both(lab: Lab) -> None:
    """The configuration of host-b was copied to another machine, where it got another address."""
    with World(lab) as world, ExitStack() as stack:
        folder = world.folder / "copy"
        folder.mkdir()
        add_address(stack, lab.b, OTHER)
        config = json.loads(world.b.file.read_text()) | {
            "run_dir": f"{folder}/run",
            "links": {"listen": f"{OTHER}:{PORT}", "security": "none"},
            "services": {},
            "peers": {"host-a": {"address": f"{world.addresses['a']}:{PORT}", "services": ["other"]}},
            "upstreams": {"other": {"listen": f"unix:{folder}/other.sock"}},
        }
        copy = stack.enter_context(Proxy(config, folder, host=lab.b))
        said = world.a.wait_for("two proxies bear the name of one host", peer="host-b")
        assert said["at"] == sorted((world.addresses["b"], OTHER))
        for proxy, here, other in ((world.b, world.addresses["b"], OTHER), (copy, OTHER, world.addresses["b"])):
            told = proxy.wait_for("another proxy bears this host's name", told_by="host-a")
            assert (told["here"], told["others"]) == (here, [other])
        for run in (world.folder / "b" / "run", folder / "run"):
            code, shown = status(run, lab.b)
            assert code == 1
            assert all(place in shown for place in (world.addresses["b"], OTHER))
        assert ask(world.folder / "a" / "run" / "admin.sock", "status")["namesakes"] == []


def test_in_a_static_mesh_two_proxies_of_one_run_dir_are_one_too_many(lab: Lab) -> None:
    with World(lab) as world:
        config = json.loads(world.b.file.read_text()) | {"links": {"listen": f"127.0.0.1:{PORT}", "security": "none"}}
        file = world.folder / "second.yaml"
        file.write_text(json.dumps(config))
        refused = hostlane("proxy", "--config", str(file), host=lab.b)
        assert refused.returncode == 2
        assert f"{config['run_dir']}/admin.sock" in refused.stderr
        assert world.counts()


@pytest.fixture(scope="module")
def running(lab: Lab) -> Iterator[Fleet]:
    with Fleet(lab) as fleet:
        yield fleet


@pytest.fixture
def fleet(running: Fleet) -> Fleet:
    running.begin(b=["echo"])
    return running


class Second:
    """``with`` gives a second proxy named host-b, ready: on the other machine, with an address, a token and a state_dir
    of its own.
    """

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self._fleet, self._folder, self._stack = fleet, folder, ExitStack()

    def __enter__(self) -> Proxy:
        fleet, folder = self._fleet, self._folder
        made = hostlane("token", "create", "--host", "host-b", "--config", str(fleet.control_file), host=fleet.lab.a)
        assert made.returncode == 0, made.stderr
        (folder / "token").write_text(made.stdout)
        config = fleet._config("b")
        config["run_dir"] = str(folder / "run")
        config["socket_dir"] = str(folder / "services")
        config["links"] = {"listen": f"{OTHER}:7600"}
        config["control"] |= {"token_file": str(folder / "token"), "state_dir": str(folder / "state")}
        with self._stack as stack:
            add_address(stack, fleet.lab.a, OTHER)
            proxy = stack.enter_context(Proxy(config, folder, host=fleet.lab.a))
            self._stack = stack.pop_all()
        return proxy

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)


@pytest.fixture
def second(fleet: Fleet) -> Iterator[Second]:
    folder = fleet.folder / "second"
    folder.mkdir()
    yield Second(fleet, folder)
    shutil.rmtree(folder)


def test_a_second_proxy_with_the_same_state_dir_does_not_start(fleet: Fleet, tmp_path: Path) -> None:
    """Whatever else of its configuration is different, and with --takeover too: there is nobody in its run_dir."""
    links = {"listen": f"{fleet.addresses['c']}:7777"}
    config = fleet._config("b") | {"run_dir": str(tmp_path / "run"), "links": links}
    file = tmp_path / "second.yaml"
    for host, option in (("host-b", []), ("host-x", []), ("host-b", ["--takeover"])):
        file.write_text(json.dumps({**config, "host": host}))
        refused = hostlane("proxy", "--config", str(file), *option, host=fleet.lab.b)
        assert refused.returncode == 2
        pid = fleet.proxies["b"].pid
        assert f"control.state_dir: {fleet.folder}/b/state: process {pid} uses it" in refused.stdout + refused.stderr
    assert fleet.status("b")["registered"]
    assert fleet.offered_by("echo") == "b"


def test_a_second_proxy_elsewhere_is_refused_and_both_say_where_the_two_are(fleet: Fleet, second: Second) -> None:
    first, run = fleet.proxies["b"], fleet.folder / "second" / "run"
    caller = Caller(0, fleet.call("echo"))
    with second as other:
        waits = other.wait_for(WAITS)
        places = (f"{fleet.addresses['b']}:7600", f"{OTHER}:7600")
        assert all(place in waits["error"] for place in places)
        warned = first.wait_for("another proxy wants to be this host, and is refused")
        # The control server sees another address of that machine.
        assert (warned["here"], warned["other"].partition(" ")[0]) == places
        assert fleet.control.wait_for("two proxies of one name", host="host-b", at=places[0], refused=warned["other"])
        code, shown = status(run, fleet.lab.a)
        assert code == 1
        assert all(place in shown for place in places)
        code, shown = status(fleet.folder / "b" / "run", fleet.lab.b)
        assert code == 0, "it is registered, and its services are called"
        assert f"{warned['other']} wants to be this host too" in shown
        # Neither the links of the second one nor what it says takes the services off the mesh, or cuts a stream.
        rounds = caller.rounds
        eventually(lambda: caller.rounds > rounds + 20 or caller.ending, "it talks on")
        assert caller.ending == ""
        caller.stop()
        assert fleet.offered_by("echo") == "b"
        assert not other.events("registered"), "it waits on"
    eventually(lambda: fleet.status("b")["namesake"] is None, "the other one is forgotten")


def test_a_restart_replaces_its_predecessor_at_once(fleet: Fleet) -> None:
    """Though that one still has its lease, and counts as alive."""
    first = fleet.proxies["b"]
    for _ in range(3):
        first.kill()
        first.restart()
        first.wait_for("registered")
        assert not first.events(WAITS)
        assert fleet.status("b")["registered"]


def test_who_has_lost_its_name_gets_it_back_by_itself(fleet: Fleet, second: Second) -> None:
    first, run = fleet.proxies["b"], fleet.folder / "second" / "run"
    with second as other:
        other.wait_for(WAITS)
        first.kill()
        other.wait_for("registered")
        eventually(lambda: status(run, fleet.lab.a)[0] == 0, "all is well with it")
        first.restart()
        first.wait_for(WAITS)
        assert status(fleet.folder / "b" / "run", fleet.lab.b)[0] == 1
        os.kill(other.pid, signal.SIGTERM)
        first.wait_for("registered")
        assert other.wait() == 0
    eventually(lambda: status(fleet.folder / "b" / "run", fleet.lab.b)[0] == 0, "without a reload")
    with fleet.call("echo") as sock:
        sock.sendall(b"hello")
        assert sock.recv(5) == b"hello"


def test_a_takeover_is_no_second_proxy(fleet: Fleet) -> None:
    """The lock goes with the sockets, to a successor that ends at once as well as to one that stays."""
    old = fleet.proxies["b"]
    argv = [*HOSTLANE, "proxy", "--config", str(old.file), "--takeover"]
    with Process(argv, host=old.host) as successor:
        successor.wait_for("proxy ready")
        assert old.wait() == 0
        refused = hostlane("proxy", "--config", str(old.file), host=fleet.lab.b)
        assert refused.returncode == 2
        assert f"process {successor.pid} uses it" in refused.stderr
        successor.wait_for("registered")
        assert not successor.events(WAITS)
        successor.kill()
    old.restart()
    old.wait_for("registered")
