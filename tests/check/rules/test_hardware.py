from __future__ import annotations

import pytest

from proxy.check.report import Unchecked
from proxy.check.rules.hardware import Device, HardwareFacts, Offloads, judge
from tests.check.rules.lines import findings, only, seen, unseen


@pytest.mark.parametrize(
    ("kind", "on", "expected"),
    [
        ("", {"tso": True, "gro": True}, []),
        ("", {"tso": False, "gro": False}, [("tso-off", "note"), ("gro-off", "note")]),
        ("macvlan", {"tso": False, "gro": False}, [("tso-off", "note")]),
        ("veth", {"tso": True, "gro": False}, []),
    ],
)
def test_offloads(kind: str, on: dict[str, bool], expected: list[tuple[str, str]]) -> None:
    assert findings(judge(HardwareFacts(offloads=(Offloads(interface="eth0", kind=kind, on=on),)))) == expected


def test_offloads_that_nobody_tells() -> None:
    item = Offloads(interface="eth0", kind="", on=Unchecked("offloads of eth0", "operation not supported"))
    assert unseen(judge(HardwareFacts(offloads=(item,)))) == ["offloads of eth0"]


def test_a_card_without_functions() -> None:
    facts = HardwareFacts(devices=(Device(interface="eth0", possible=2, made=0),), iommu=True)
    found = only(judge(facts))
    assert (found.name, found.level) == ("unused-sriov", "note")
    assert found.mend.startswith("echo 2 > /sys/class/net/eth0/device/sriov_numvfs")


def test_a_card_with_functions() -> None:
    facts = HardwareFacts(devices=(Device(interface="eth0", possible=63, made=4),))
    assert findings(judge(facts)) == [("no-iommu", "note")]
    assert seen(judge(facts)) == ["eth0: 4 of 63 virtual functions are made"]


def test_no_card() -> None:
    assert seen(judge(HardwareFacts())) == ["no interface here offers SR-IOV"]
