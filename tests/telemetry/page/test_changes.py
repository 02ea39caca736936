from __future__ import annotations

import msgspec

from control.api.messages import PeerStatus
from proxy.telemetry.page.changes import FLAPS, WINDOW, Changes

PEER = PeerStatus(name="host-b", address="b:1", state="up", links=1, streams=0, waiting=0)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_links_flap_when_they_are_resumed_again_and_again() -> None:
    clock = Clock()
    found = Changes(clock)
    found.look([msgspec.structs.replace(PEER, resumed=7)])
    assert found.flapping == {}, "what was before is over"
    for count in range(1, FLAPS + 1):
        clock.now += 5
        found.look([msgspec.structs.replace(PEER, resumed=7 + count)])
        assert found.flapping == ({} if count < FLAPS else {"host-b": (FLAPS, 10.0)})
    clock.now += WINDOW + 1
    found.look([msgspec.structs.replace(PEER, resumed=7 + FLAPS)])
    assert found.flapping == {}
    found.look([])
    assert found._resumed == {}, "a peer that was removed is forgotten"
