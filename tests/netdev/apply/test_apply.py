"""Plans carried out on the real kernel, in a namespace of their own; and failures at every step of them."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from proxy.demo import netns
from proxy.errors import NetError
from proxy.netdev.apply.apply import apply, take_back
from proxy.netdev.observe import observe
from proxy.netdev.observe.networkstate import NetworkState
from proxy.netdev.plan.plan import removal
from proxy.netdev.plan.steps import NetPlan, Operation, SetAddress, SetLink, Step
from tests.netdev.machine import Failing, applied, dump, fails_at_every_step, interfaces, ip, lines, planned, removed

pytestmark = pytest.mark.netns

MAC = "02:00:00:00:00:01"
FULL = """
  hl0: {parent: eth0, mac: "02:00:00:00:00:01", mtu: 1400, addresses: [10.9.0.1/24, 10.9.0.2/24, "fd00::1/64"],
        routes: [{to: 10.8.0.0/16, via: 10.9.0.254, metric: 5}, {to: default, via: "fd00::fe"}, {to: 10.7.0.0/16}],
        source_table: 7600}
  hl1: {parent: eth0, mode: private}
  cable: {kind: existing, addresses: [10.6.0.1/24], routes: [{to: 10.5.0.0/16, via: 10.6.0.2}]}
"""


@pytest.mark.parametrize("mode", ["bridge", "private", "vepa", "passthru"])
def test_twice_is_one_change_and_remove_leaves_nothing(space: str, mode: str) -> None:
    before = dump(space)
    wanted = interfaces(f"{{hl0: {{parent: eth0, mode: {mode}, addresses: [10.9.0.1/24]}}}}")
    assert applied(space, wanted).steps
    with netns.entered(space):
        found = observe.snapshot().named("hl0")
    assert found is not None
    assert (found.macvlan_mode, found.alias, found.up, found.carrier) == (mode, "hostlane:a:hl0", True, True)
    after = dump(space)
    assert planned(space, wanted) == NetPlan()
    assert applied(space, wanted) == NetPlan()
    assert dump(space) == after
    removed(space)
    assert dump(space) == before
    assert removed(space) == NetPlan()


def test_everything_at_once(space: str) -> None:
    before = dump(space)
    wanted = interfaces(FULL)
    assert lines(applied(space, wanted)) == [
        f"hl0: create macvlan on eth0, mode bridge, mac {MAC}, mtu 1400",
        "hl0: mark as hostlane:a:hl0",
        "hl0: set up",
        "hl0: add address 10.9.0.1/24",
        "hl0: add address 10.9.0.2/24",
        "hl0: add address fd00::1/64",
        "hl0: add route 10.8.0.0/16 via 10.9.0.254 metric 5",
        "hl0: add route ::/0 via fd00::fe metric 1024",
        "hl0: add route 10.7.0.0/16",
        "hl0: add route 10.9.0.0/24 in table 7600",
        "hl0: add route fd00::/64 metric 1024 in table 7600",
        "hl0: add route 10.8.0.0/16 via 10.9.0.254 metric 5 in table 7600",
        "hl0: add route ::/0 via fd00::fe metric 1024 in table 7600",
        "hl0: add route 10.7.0.0/16 in table 7600",
        "hl0: add rule from 10.9.0.1 lookup 7600",
        "hl0: add rule from 10.9.0.2 lookup 7600",
        "hl0: add rule from fd00::1 lookup 7600",
        "hl1: create macvlan on eth0, mode private, mac 0a:26:34:70:5a:67",
        "hl1: mark as hostlane:a:hl1",
        "hl1: set up",
        "cable: add address 10.6.0.1/24",
        "cable: add route 10.5.0.0/16 via 10.6.0.2",
    ]
    assert planned(space, wanted) == NetPlan()
    removed(space)
    assert dump(space) == before


def test_a_failure_at_every_step_of_making(space: str) -> None:
    wanted = interfaces(FULL)
    before = dump(space)
    found = planned(space, wanted)
    fails_at_every_step(space, found.steps, lambda kernel: apply(found, kernel), before)


def test_a_failure_at_every_step_of_changing(space: str) -> None:
    applied(space, interfaces(FULL))
    before = dump(space)
    other = interfaces("""
  hl0: {parent: eth0, mtu: 1300, addresses: [10.9.0.2/24, 10.9.0.3/24], routes: [{to: 10.8.0.0/16, via: 10.9.0.253}]}
  hl1: {parent: eth0, mode: bridge}
  hl2: {parent: cable, mode: passthru}""")
    found = planned(space, other)
    assert not found.problems
    assert len(found.steps) > 10
    fails_at_every_step(space, found.steps, lambda kernel: apply(found, kernel), before)
    applied(space, other)
    assert planned(space, other) == NetPlan()


def test_routes_of_others_survive_an_only_address_that_is_taken_back(space: str) -> None:
    """Where there is no IPv4 address, there may be routes; the kernel drops them with the last address."""
    ip(space, "route add 10.4.0.0/16 dev cable", "route add 10.3.0.0/16 dev cable metric 7")
    before = dump(space)
    wanted = interfaces("{cable: {kind: existing, addresses: [10.6.0.1/24, 10.6.0.2/24], routes: [{to: 10.5.0.0/16}]}}")
    found = planned(space, wanted)
    fails_at_every_step(space, found.steps, lambda kernel: apply(found, kernel), before)
    applied(space, wanted)
    removed(space)
    assert dump(space) == before


class Broken:
    """It does everything but one operation, and takes nothing back."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def run(self, operation: Operation) -> None:
        if operation == UP:
            raise self.error
        if operation in (DOWN, SetLink(link="x", key="mtu", value=1)):
            raise NetError(f"{operation}: refused")


UP, DOWN = (SetLink(link="x", key="state", value=value) for value in ("up", "down"))
STEPS = (
    Step(SetLink(link="x", key="mtu", value=2), (SetLink(link="x", key="mtu", value=1),)),
    Step(
        SetAddress(link="x", address="10.9.0.1/24"), (DOWN, SetAddress(link="x", address="10.9.0.1/24", present=False))
    ),
    Step(UP),
)


def test_what_could_not_be_taken_back_is_said() -> None:
    with pytest.raises(NetError) as caught:
        apply(NetPlan(steps=STEPS), Broken(NetError("x: set up: no")))
    expected = "x: set up: no; could not be taken back: x: set down: refused; x: set mtu 1: refused"
    assert str(caught.value) == expected
    assert len(take_back(STEPS[:2], Broken(NetError("")))) == 2


class Interrupted:
    """Ctrl-C in the middle of one operation, and at once again when it is taken back."""

    def __init__(self, at: Operation) -> None:
        self.at, self.begun, self.ended = at, list[Operation](), list[Operation]()

    def run(self, operation: Operation) -> None:
        self.begun.append(operation)
        if operation in (self.at, DOWN):
            signal.raise_signal(signal.SIGINT)
        self.ended.append(operation)


@pytest.fixture
def terminal() -> Iterator[None]:
    """Where SIGINT is not ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("number", range(3))
def test_ctrl_c_in_a_step_takes_it_back_too(number: int) -> None:
    kernel = Interrupted(STEPS[number].do)
    with pytest.raises(KeyboardInterrupt):
        apply(NetPlan(steps=STEPS), kernel)
    done = STEPS[: number + 1]
    assert kernel.begun == kernel.ended
    assert kernel.ended == [step.do for step in done] + [undo for step in reversed(done) for undo in step.undo]


def test_ctrl_c_and_what_cannot_be_taken_back() -> None:
    kernel = Failing(Broken(KeyboardInterrupt()), 99)
    with pytest.raises(NetError, match=r"^interrupted; could not be taken back: x: set down: refused; x: set mtu 1"):
        apply(NetPlan(steps=STEPS), kernel)
    assert SetAddress(link="x", address="10.9.0.1/24", present=False) in kernel.done


def test_a_plan_with_problems_is_not_begun() -> None:
    with pytest.raises(NetError, match="one; two"):
        apply(NetPlan(steps=STEPS, problems=("one", "two")), Broken(AssertionError("begun")))


def test_a_failure_at_every_step_of_removing(space: str) -> None:
    applied(space, interfaces(FULL))
    before = dump(space)
    with netns.entered(space):
        found = removal("a", NetworkState(snapshot=observe.snapshot()))
    fails_at_every_step(space, found.steps, lambda kernel: apply(found, kernel), before)
