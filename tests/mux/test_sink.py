from __future__ import annotations

from proxy.mux.sink import SessionSink
from proxy.pump.session import LaneSession
from tests.mux.pair import TalkSession


def test_whoever_drives_a_session_hears_every_call() -> None:
    """By name: what a driver's session lacked, nobody would hear."""
    calls = {name for name in vars(SessionSink) if name.startswith("on_")}
    told = ("call", "opened", "refused", "data", "fin", "rst", "credit", "pong", "goaway", "closed")
    assert calls == {f"on_{what}" for what in told}
    for driver in (LaneSession, TalkSession):
        assert calls <= set(vars(driver)), driver
