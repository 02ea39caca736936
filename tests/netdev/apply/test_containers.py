"""macvlan children in and out of the namespaces of real processes."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator

import pytest

from proxy.config import schema as config
from proxy.config.interfaces import ContainerInterfaceConfig, RouteConfig
from proxy.demo import netns
from proxy.errors import NetError
from proxy.netdev.apply import containers
from proxy.netdev.apply.apply import apply
from proxy.netdev.apply.containers import AttachTarget, Detached
from proxy.netdev.apply.kernel import Kernel
from proxy.netdev.apply.manage import look
from proxy.netdev.observe import docker, observe
from proxy.netdev.observe.namespaces import open_namespace, run_inside
from proxy.netdev.plan.attach import plan_attachment
from proxy.netdev.plan.steps import NetPlan
from tests.netdev.machine import HEAD, Failing, dump, ip, lines

pytestmark = pytest.mark.netns

CONFIG = config.parse(HEAD, "f")
WANTED = ContainerInterfaceConfig(
    parent="eth0", addresses=("10.9.0.5/24",), routes=(RouteConfig(to="default", via="10.9.0.254"),), name="eth1"
)


@pytest.fixture
def container(space: str) -> Iterator[tuple[str, int]]:
    """A second namespace and the process that lives there; both end with the test."""
    name = f"{space}-container"
    netns.add(name)
    argv = netns.inside(name, ["sh", "-c", "echo ready; exec sleep 600"])
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    with process.stdout as ready:
        assert ready.readline() == b"ready\n"
    # From here on the namespace lives as long as its process, as a container's does.
    netns.run(["umount", f"/run/netns/{name}"])
    os.unlink(f"/run/netns/{name}")
    yield name, process.pid
    process.kill()
    process.wait()


def inside(pid: int, look: Callable[[], observe.NetSnapshot]) -> observe.NetSnapshot:
    fd = open_namespace(pid)
    try:
        return run_inside(fd, look)
    finally:
        os.close(fd)


def test_attached_and_detached(space: str, container: tuple[str, int]) -> None:
    _, pid = container
    before, empty = dump(space), inside(pid, observe.snapshot)
    target = containers.of_process(pid)
    with netns.entered(space):
        done = containers.attach(CONFIG, target, WANTED)
        assert len(done.steps) == 6
        assert containers.attach(CONFIG, target, WANTED).steps == ()
    found = inside(pid, observe.snapshot)
    eth1 = found.named("eth1")
    assert eth1 is not None
    assert (eth1.kind, eth1.up, eth1.carrier, eth1.alias) == ("macvlan", True, True, f"hostlane:a:@pid-{pid}")
    assert "10.9.0.5/24" in {str(address) for address in found.addresses_of(eth1.index)}
    assert "10.9.0.254" in {route.via for route in found.routes}
    with netns.entered(space):
        parent = look().snapshot.named("eth0")
        assert parent is not None
        assert eth1.mac in parent.unicast, "counted, wherever it is"
        assert lines(containers.detach(CONFIG, target).plan) == ["eth1: delete"]
        assert containers.detach(CONFIG, target) == Detached(plan=NetPlan(), names=(target.name,))
    assert dump(space) == before
    assert inside(pid, observe.snapshot) == empty


def test_nothing_is_left_of_a_container_that_has_ended(space: str, container: tuple[str, int]) -> None:
    _, pid = container
    before = dump(space)
    target = containers.of_process(pid)
    with netns.entered(space):
        containers.attach(CONFIG, target, WANTED)
        os.kill(pid, 9)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert containers.detach(CONFIG, AttachTarget(name=target.name, pid=None)).plan == NetPlan()
        wait_until_gone(space, before)
    assert dump(space) == before


def wait_until_gone(space: str, before: list[str]) -> None:
    """The kernel clears a namespace after its last process; netlink tells when the parent has lost its child."""
    for _ in range(10_000):
        parent = look().snapshot.named("eth0")
        if parent is not None and not parent.unicast and dump(space) == before:
            return
    raise AssertionError("the child is still there")


def test_a_failure_at_every_step_leaves_both_namespaces_as_before(space: str, container: tuple[str, int]) -> None:
    _, pid = container
    before, empty = dump(space), inside(pid, observe.snapshot)
    with netns.entered(space):
        home, there = open_namespace(), open_namespace(pid)
        try:
            plan = plan_attachment(CONFIG, "web", WANTED, look(), empty, "hltemp")
            for number, step in enumerate(plan.steps):
                with pytest.raises(NetError, match="taken back|nothing was changed"):
                    apply(plan, Failing(Kernel(home=home, container=there), number))
                assert dump(space) == before, step
                assert inside(pid, observe.snapshot) == empty, step
        finally:
            os.close(home)
            os.close(there)


def test_an_interface_moves_into_the_container_and_back(space: str, container: tuple[str, int]) -> None:
    """A veth stands for the virtual function that no namespace of this kernel has."""
    from proxy.netdev.plan.steps import MoveLink

    _, pid = container
    ip(space, "link add hltemp type veth peer name other")
    before = dump(space)
    with netns.entered(space):
        home, there = open_namespace(), open_namespace(pid)
        try:
            kernel = Kernel(home=home, container=there)
            kernel.run(MoveLink(link="hltemp"))
            assert inside(pid, observe.snapshot).named("hltemp") is not None
            assert look().snapshot.named("hltemp") is None
            kernel.run(MoveLink(link="hltemp", inside=True))
        finally:
            os.close(home)
            os.close(there)
    assert dump(space) == before


@pytest.mark.parametrize("name", ["10.9.0.5 is taken", "eth1 is taken"])
def test_a_container_that_has_it_already(space: str, container: tuple[str, int], name: str) -> None:
    taken = {"eth1": "ip link add eth1 type veth peer name p", "10.9.0.5": "ip addr add 10.9.0.5/8 dev lo"}
    _, pid = container
    netns.run(["nsenter", "-t", str(pid), "-n", *taken[name.split()[0]].split()])
    before = dump(space)
    with netns.entered(space), pytest.raises(NetError, match=name.split()[0]):
        containers.attach(CONFIG, containers.of_process(pid), WANTED)
    assert dump(space) == before


def test_who_has_no_namespace_of_its_own(space: str) -> None:
    with pytest.raises(NetError, match=f"pid-{os.getpid()} is in this host's network namespace"):
        containers.attach(CONFIG, containers.of_process(os.getpid()), WANTED)
    with pytest.raises(NetError, match="pid-4194304 does not run or is not there; only what runs"):
        containers.attach(CONFIG, containers.of_process(4194304), WANTED)


def test_a_container_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or by its id: it has its name in either case."""
    monkeypatch.setattr(docker, "container", lambda name: ("web-1", 7) if name in ("web-1", "f00") else (name, None))
    assert containers.of_container("web-1") == containers.of_container("f00") == AttachTarget(name="web-1", pid=7)
    assert containers.of_container("web-2") == AttachTarget(name="web-2", pid=None)


def test_attached_by_one_name_and_detached_by_another(
    space: str, container: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the number of its process and by its name, or by a name that it has no more: nothing stays. Leases are those
    of whoever is in that namespace, whatever else a container writes into a mark.
    """
    _, pid = container
    by_pid, by_name = containers.of_process(pid), AttachTarget(name="web-1", pid=pid)
    monkeypatch.setattr(docker, "container", lambda name: (name, pid if name == "web-1" else None))
    before, empty = dump(space), inside(pid, observe.snapshot)
    for first, second, names in (
        (by_pid, by_name, (by_pid.name, "web-1")),
        (by_name, by_pid, (by_pid.name, "web-1")),
        (AttachTarget(name="formerly", pid=pid), by_name, ("web-1",)),
        (AttachTarget(name=f"pid-{os.getpid()}", pid=pid), by_name, ("web-1",)),
    ):
        with netns.entered(space):
            containers.attach(CONFIG, first, WANTED)
            done = containers.detach(CONFIG, second)
        assert (lines(done.plan), done.names) == (["eth1: delete"], tuple(sorted(names)))
        assert (dump(space), inside(pid, observe.snapshot)) == (before, empty)


def test_what_is_in_this_hosts_own_namespace_is_left_there(space: str) -> None:
    """What a container with the host's network would seem to have is what others have given back."""
    ip(space, "link add eth9 link eth0 type macvlan")
    ip(space, "link set eth9 alias hostlane:a:@ended")
    before = dump(space)
    with netns.entered(space):
        own = AttachTarget(name="web-1", pid=threading.get_native_id())
        assert containers.detach(CONFIG, own) == Detached(plan=NetPlan(), names=("web-1",))
    assert dump(space) == before
