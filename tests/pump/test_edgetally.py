from __future__ import annotations

from time import monotonic

import pytest

from proxy.errors import CloseReason
from proxy.pump.edgetally import EdgeTally


class Failing(EdgeTally):
    def __init__(self) -> None:
        super().__init__()
        self.failures: list[tuple[CloseReason, float]] = []

    def fail(self, reason: CloseReason, now: float) -> None:
        self.failures.append((reason, now))


def test_an_edge_tells_of_failures_only() -> None:
    edge, before = Failing(), monotonic()
    edge.opened = 3
    edge.over(CloseReason.FINISHED, 1, 2)
    edge.over(CloseReason.ABORTED, 10, 20)
    edge.over(CloseReason.LINK_LOST, 100, 200)
    assert (edge.ended, edge.sent, edge.received) == (3, 111, 222)
    [(reason, when)] = edge.failures
    assert reason is CloseReason.LINK_LOST
    assert before <= when <= monotonic()


def test_who_keeps_edges_says_what_a_failure_is() -> None:
    with pytest.raises(NotImplementedError):
        EdgeTally().fail(CloseReason.LINK_LOST, 1.0)
