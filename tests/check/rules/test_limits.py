from __future__ import annotations

import pytest

from proxy.check.report import Unchecked
from proxy.check.rules.limits import DescriptorFacts, judge
from tests.check.rules.lines import findings, only, seen, unseen


@pytest.mark.parametrize(
    ("limit", "streams", "expected"),
    [
        (1024, None, [("few-descriptors", "wrong")]),
        (4096, None, []),
        (1024, 100, []),
        (163, 100, [("few-descriptors", "wrong")]),
        (4095, 65535, [("few-descriptors", "wrong")]),
        (4096, 65535, [("few-descriptors", "note")]),
        (65599, 65535, []),
    ],
)
def test_descriptors(limit: int, streams: int | None, expected: list[tuple[str, str]]) -> None:
    assert findings(judge(DescriptorFacts(owner="it", limit=limit, streams_per_link=streams))) == expected


def test_what_is_needed() -> None:
    facts = DescriptorFacts(owner="it", limit=10, open=7, streams_per_link=100, links=3, listeners=5)
    found = only(judge(facts))
    assert found.read == (
        "it may open 10 files (7 open now); one link full of streams, "
        "limits.streams_per_link = 100, takes 177"
    )
    assert found.mend.startswith("LimitNOFILE=177 ")


def test_what_is_enough() -> None:
    assert seen(judge(DescriptorFacts(owner="it", limit=9000))) == [
        "it may open 9000 files"
    ]


def test_what_cannot_be_seen() -> None:
    assert unseen(judge(DescriptorFacts(limit=Unchecked("descriptor limit", "no")))) == ["descriptor limit"]
