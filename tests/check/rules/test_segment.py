from __future__ import annotations

import pytest

from proxy.check.report import Unchecked
from proxy.check.rules.segment import AddressClaim, SegmentFacts, judge
from tests.check.rules.lines import findings, only, seen, unseen

pytestmark = pytest.mark.failure(13)

PEERS = {"10.0.0.2": "b", "10.0.0.3": "c"}


def facts(*answers: tuple[str, str]) -> SegmentFacts:
    return SegmentFacts(
        own=("10.0.0.1",),
        own_macs={"mv0": "02::1", "eth0": "02::e"},
        peers=PEERS,
        asked=("mv0",),
        answers=tuple(AddressClaim(interface="mv0", address=address, mac=mac) for address, mac in answers),
    )


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([("10.0.0.2", "02::2"), ("10.0.0.3", "02::3")], []),
        ([("10.0.0.1", "02::9"), ("10.0.0.1", "02::9")], [("duplicate-ip", "wrong")]),
        ([("10.0.0.1", "02::e")], []),
        ([("10.0.0.2", "02::1")], [("duplicate-mac", "wrong")]),
        ([("10.0.0.2", "02::2"), ("10.0.0.2", "02::9")], [("duplicate-peer-ip", "wrong")]),
        ([("10.0.0.2", "02::2"), ("10.0.0.3", "02::2")], [("duplicate-peer-mac", "wrong")]),
        ([("10.0.0.7", "02::7"), ("10.0.0.7", "02::8")], []),
    ],
    ids=["clean", "our address", "our other interface", "our mac", "a peer's address", "a peer's mac", "strangers"],
)
def test_answers(answers: list[tuple[str, str]], expected: list[tuple[str, str]]) -> None:
    assert findings(judge(facts(*answers))) == expected


def test_who_has_our_mac() -> None:
    assert only(judge(facts(("10.0.0.2", "02::1")))).read == "peer b, 10.0.0.2, is at 02::1, the MAC of this host's mv0"
    assert only(judge(facts(("10.0.0.9", "02::1")))).read == "10.0.0.9 is at 02::1, the MAC of this host's mv0"


def test_nothing_twice() -> None:
    assert seen(judge(facts())) == ["nobody else on mv0 has an address of this host or of another peer"]


def test_a_peer_that_nobody_is() -> None:
    sought = {"10.0.0.2": "mv0", "10.0.0.3": "mv0"}
    answers = (AddressClaim(interface="mv0", address="10.0.0.2", mac="02::2"),)
    found = only(judge(SegmentFacts(peers=PEERS, asked=("mv0",), sought=sought, answers=answers)))
    assert (found.name, found.where) == ("silent-peer", "peer c")
    assert findings(judge(SegmentFacts(peers=PEERS, asked=Unchecked("ARP probes", "root"), sought=sought))) == []


def test_without_privilege() -> None:
    lines = list(judge(SegmentFacts(asked=Unchecked("ARP probes", "root"), peers=PEERS)))
    assert (unseen(lines), seen(lines)) == (["ARP probes"], [])
