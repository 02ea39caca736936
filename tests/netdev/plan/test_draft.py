from __future__ import annotations

from proxy.netdev.observe.mark import InterfaceMark
from proxy.netdev.plan.draft import PlanDraft
from proxy.netdev.plan.steps import DeleteLink, NetPlan, SetLink, Step
from tests.netdev.picture import ETH0, HL0, changed, world


def test_it_collects_each_problem_and_note_once() -> None:
    draft = PlanDraft("a", world())
    up, down = SetLink(link="x", key="state", value="up"), SetLink(link="x", key="state", value="down")
    draft.do(up, down)
    draft.do(DeleteLink(link="x"))
    for _ in range(2):
        draft.problem("p")
        draft.note("n")
    steps = (Step(up, (down,)), Step(DeleteLink(link="x")))
    assert draft.plan() == NetPlan(steps=steps, problems=("p",), notes=("n",))


def test_own_is_what_bears_this_host_s_mark_and_is_not_gone() -> None:
    other, gone = changed(HL0, index=8, alias="hostlane:b:hl0"), changed(HL0, index=9, name="hl9")
    draft = PlanDraft("a", world(ETH0, HL0, other, gone))
    draft.gone.add(9)
    assert draft.own() == [(HL0, InterfaceMark(host="a", name="hl0"))]
    assert draft.named("hl0") == HL0
    assert draft.named("hl9") is None
    assert draft.is_own(HL0, "hl0")
    assert not draft.is_own(HL0, "hl1")
    assert not draft.is_own(other, "hl0")
    assert not draft.is_own(ETH0, "eth0")
