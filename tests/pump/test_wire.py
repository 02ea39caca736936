from __future__ import annotations

from proxy.links.tlswire import TlsWire
from proxy.pump.wire import Wire
from tests.pump.test_watcher import asked


def test_a_link_finds_what_it_calls() -> None:
    assert asked(Wire) == {"recv_into", "send"} <= set(dir(TlsWire))
