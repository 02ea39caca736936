from __future__ import annotations

import pytest

from proxy.check.report import Unchecked
from proxy.check.rules.mtu import MtuFacts, MtuProbe, judge
from tests.check.rules.lines import findings, only, seen, unseen

pytestmark = pytest.mark.failure(14)


def measured(largest: int, told: int | None = None, teller: str | None = None) -> MtuFacts:
    item = MtuProbe(peer="b", address="10.0.0.2", interface="mv0", mtu=1500, largest=largest, told=told, teller=teller)
    return MtuFacts(measured=(item,))


def test_all_of_it() -> None:
    assert seen(judge(measured(1500))) == ["10.0.0.2 (b): 1500 bytes pass, as mv0 allows"]


def test_silence() -> None:
    found = only(judge(measured(1399)))
    assert (found.name, found.level) == ("mtu-black-hole", "wrong")
    assert found.mend.startswith("ip link set mv0 mtu 1399 here")


def test_a_word_from_a_router() -> None:
    found = only(judge(measured(1400, 1400, "10.0.0.9")))
    assert (found.name, found.level) == ("smaller-path-mtu", "note")
    assert "10.0.0.9 passes on 1400 bytes" in found.read
    assert "a router passes on 1400 bytes" in only(judge(measured(1400, 1400))).read


def test_nobody_to_ask() -> None:
    assert unseen(judge(MtuFacts())) == ["path MTU"]
    lines = list(judge(MtuFacts(measured=(Unchecked("path MTU to 10.0.0.2", "no answer"),))))
    assert (findings(lines), unseen(lines)) == ([], ["path MTU to 10.0.0.2"])
