from __future__ import annotations

import pytest

from proxy.check.report import Unchecked
from proxy.check.rules.containers import ContainerFacts, HookFile, judge
from tests.check.rules.lines import findings, seen, unseen

HOOK = HookFile(path="/etc/cdi/hostlane.json", program="/etc/cdi/hostlane-hook", socket="/d/hook.sock")


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (ContainerFacts(door=False), []),
        (ContainerFacts(), [("start-race", "note")]),
        (ContainerFacts(socket="/d/hook.sock"), [("no-hook", "note")]),
        (ContainerFacts(socket="/d/hook.sock", files=(HOOK,)), []),
        (ContainerFacts(socket="/e/hook.sock", files=(HOOK,)), [("hook-elsewhere", "note")]),
        (ContainerFacts(files=(HOOK,)), [("start-race", "note"), ("hook-elsewhere", "note")]),
        (
            ContainerFacts(socket="/d/hook.sock", files=(HookFile(path="/f", program="/p", runnable=False),)),
            [("broken-hook", "wrong")],
        ),
    ],
)
def test_findings(facts: ContainerFacts, expected: list[tuple[str, str]]) -> None:
    assert findings(judge(facts)) == expected


def test_what_is_as_it_should_be() -> None:
    removed = HookFile(path="/var/run/cdi/hostlane.json")
    facts = ContainerFacts(socket="/d/hook.sock", files=(HOOK, removed))
    assert seen(judge(facts)) == [
        "/etc/cdi/hostlane.json: containers that name the device start when the door is ready, or away",
        "/var/run/cdi/hostlane.json: the device is there without a hook (hostlane cdi remove)",
    ]
    assert seen(judge(ContainerFacts(door=False))) == ["there is no door: labels of containers mean nothing"]


def test_a_file_of_somebody_else_is_not_judged() -> None:
    facts = ContainerFacts(socket="/d/hook.sock", files=(Unchecked("/etc/cdi/hostlane.json", "why"),))
    assert findings(judge(facts)) == []
    assert list(unseen(judge(facts))) != []
