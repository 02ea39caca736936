"""In which order hosts are tried."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.routing.balance import order


class Peer(NamedTuple):
    name: str
    up: bool
    streams: int = 0


CASES = {
    "none": ([], []),
    "one that is down is better than nothing": ([Peer("a", False)], ["a"]),
    "fewest streams first": ([Peer("a", True, 5), Peer("b", True, 1), Peer("c", True, 3)], ["b", "c", "a"]),
    "up before down, however busy": ([Peer("a", False), Peer("b", True, 60000)], ["b", "a"]),
    "among equals as configured": ([Peer("b", True, 2), Peer("a", True, 2)], ["b", "a"]),
}


@pytest.mark.parametrize(("peers", "expected"), CASES.values(), ids=list(CASES))
def test_order(peers: list[Peer], expected: list[str]) -> None:
    assert [peer.name for peer in order(peers)] == expected


@given(st.lists(st.builds(Peer, st.text(max_size=3), st.booleans(), st.integers(0, 10))))
def test_every_host_is_tried_once(peers: list[Peer]) -> None:
    ordered = order(peers)
    assert sorted(ordered) == sorted(peers)
    assert [peer.up for peer in ordered] == sorted((peer.up for peer in peers), reverse=True)
