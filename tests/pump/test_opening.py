from __future__ import annotations

import socket

from proxy.outbound.connectsocket import ConnectCaller, Heads
from proxy.pump.lane import Lane
from proxy.pump.opening import Asked, Opening
from proxy.pump.session import LaneSession
from tests.pump.test_watcher import asked


def test_a_window_can_ask_each_kind_of_call_and_what_carries_it() -> None:
    """By name: what one lacked would show as an AttributeError in the middle of a turn."""
    with socket.socket(socket.AF_UNIX) as sock:
        for call in (Lane, ConnectCaller(sock)):
            assert asked(Opening) <= set(dir(call))
    for carrier in (LaneSession, Heads):
        assert asked(Asked) <= set(dir(carrier))
