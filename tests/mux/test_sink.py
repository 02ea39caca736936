from __future__ import annotations

from proxy.mux.sink import SessionSink
from proxy.pump.session import LaneSession
from tests.mux.pair import Side


def test_whoever_drives_a_session_hears_every_call() -> None:
    """By name: what the driver lacked would show as an AttributeError in the middle of a frame."""
    calls = {name for name in vars(SessionSink) if name.startswith("on_")}
    told = ("call", "opened", "refused", "data", "fin", "rst", "credit", "pong", "goaway", "closed")
    assert calls == {f"on_{what}" for what in told}
    for driver in (LaneSession, Side):
        assert calls <= set(dir(driver)), driver
