from __future__ import annotations

from proxy.outbound.connectsocket import Heads
from proxy.pump.lane import Lane
from proxy.pump.opening import Asked, Opening
from proxy.pump.session import LaneSession
from tests.pump.test_watcher import asked


def test_a_window_can_ask_a_call_and_each_kind_of_what_carries_it() -> None:
    """By name: what one lacked would show as an AttributeError in the middle of a turn."""
    assert asked(Opening) <= set(dir(Lane))
    for carrier in (LaneSession, Heads):
        assert asked(Asked) <= set(dir(carrier))
