from __future__ import annotations

import msgspec

from control.api.messages import EdgeInfo
from control.api.page import Wanted

EDGE = EdgeInfo(
    caller="shop", caller_host="host-a", service="redis", host="host-b", direction="outbound", streams=1, opened=2,
    failed=1, sent=3, received=4, opened_per_s=0.5, failed_per_s=0.0, sent_per_s=5.0, received_per_s=6.0,
)  # fmt: skip
LOST = msgspec.structs.replace(EDGE, host=None, service="mail & more")


def found(query: str) -> list[EdgeInfo]:
    return Wanted.of(query).edges([EDGE, LOST])


def test_what_is_looked_for() -> None:
    assert found("") == found("nothing=of&search=") == found("search=%20SHOP+") == [EDGE, LOST]
    assert found("search=Redi") == found("service=redis") == found("host=host-b&caller_host=host-a") == [EDGE]
    assert found("search=%26") == found("host=no+host") == found("search=no%20host") == [LOST]
    assert found("service=redi") == found("search=redis&host=host-a") == []


def test_a_query_that_makes_no_sense_is_no_error() -> None:
    for query in ("%", "&&==", "search=%ff", "search", "search=a&search=shop"):
        assert isinstance(Wanted.of(query), Wanted)
    assert found("search=a&search=redis") == [EDGE], "the last one counts"


def test_names() -> None:
    wanted = Wanted.of("search=AB")
    assert wanted.has("x", "cabs")
    assert not wanted.has("x")
    assert Wanted.of("").has()
