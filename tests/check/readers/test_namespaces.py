from __future__ import annotations

import os

import pytest

from proxy.check.readers.namespaces import ChildInterface, children, elsewhere, enter, label, one_process_each
from proxy.check.report import Unchecked
from proxy.demo import netns
from proxy.errors import NetError
from proxy.netdev.observe.observe import snapshot
from tests.check.ground import Ground, check, unseen
from tests.tools.nobody import as_nobody

pytestmark = pytest.mark.netns


def found(ground: Ground) -> tuple[ChildInterface, ...] | Unchecked:
    with netns.entered(ground.here):
        return children(snapshot())


def test_a_macvlan_in_a_container(ground: Ground) -> None:
    container = ground.add("container")
    ground.macvlan(ground.here, "mv0", container, "10.77.0.3/24")
    pid = ground.live(container)
    result = found(ground)
    assert isinstance(result, tuple)
    [child] = result
    assert (child.label, child.pid, child.interface.name) == (f"process {pid} (cat)", pid, "mv0")
    assert child.parent.name == "eth0"
    assert "10.77.0.3/24" in child.addresses


def test_containers_of_others_are_theirs(ground: Ground) -> None:
    """A macvlan whose parent has the same index, in another namespace than this one."""
    container = ground.add("container")
    ground.macvlan(ground.there, "mv0", container, "10.77.0.3/24")
    ground.live(container)
    assert found(ground) == ()


@pytest.mark.nobody
def test_a_macvlan_here_is_no_child(ground: Ground) -> None:
    ground.macvlan(ground.here, "mv0", ground.here, "10.77.0.3/24")
    assert found(ground) == ()
    assert "interfaces in other namespaces" not in unseen(check(netns.inside(ground.here, as_nobody())))


@pytest.mark.nobody
def test_only_root_may_look(ground: Ground) -> None:
    ground.macvlan(ground.here, "mv0", ground.add("container"), "10.77.0.3/24")
    report = check(netns.inside(ground.here, as_nobody()))
    assert "interfaces in other namespaces that hang on eth0: 1: only root may enter those" in unseen(report)


def test_enter(ground: Ground) -> None:
    pid = ground.live(ground.here)
    assert elsewhere(pid)
    assert not elsewhere(os.getpid())
    assert pid in set(one_process_each())
    assert enter(pid, snapshot).named("eth0") is not None
    with pytest.raises(NetError, match="there is no process"):
        enter(2**22 + 1, snapshot)


def test_label() -> None:
    assert label(os.getpid()).startswith((f"process {os.getpid()} (", "container "))
    assert label(2**22 + 1) == f"process {2**22 + 1}"
