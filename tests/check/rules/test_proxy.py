from __future__ import annotations

from proxy.check.report import Unchecked
from proxy.check.rules.proxy import ProxyFacts, judge
from tests.check.rules.lines import findings, only, seen, unseen


def test_a_proxy_that_is_well() -> None:
    assert findings(judge(ProxyFacts(pid=7))) == []
    assert seen(judge(ProxyFacts(pid=7))) == ["process 7 answers, accepts, and reads its configuration"]


def test_nobody_to_ask() -> None:
    assert unseen(judge(ProxyFacts(unseen=Unchecked("the running proxy", "no proxy runs")))) == ["the running proxy"]


def test_each_socket_where_nothing_is_accepted() -> None:
    facts = ProxyFacts(pid=7, cannot_accept=("links.listen: no", "unix:/x: no"))
    assert [(each.name, each.level, each.read) for each in judge(facts) if not isinstance(each, Unchecked)] == [
        ("cannot-accept", "wrong", "links.listen: no"),
        ("cannot-accept", "wrong", "unix:/x: no"),
    ]


def test_the_rest() -> None:
    assert only(judge(ProxyFacts(pid=7, silent="no answer"))).read == "process 7: no answer"
    assert findings(judge(ProxyFacts(config_stale="a mount", record_stopped="full"))) == [
        ("stale-configuration", "wrong"),
        ("uses-not-recorded", "note"),
    ]
