from __future__ import annotations

import msgspec
import trio
from trio.testing import MockClock

from control.api.messages import PeerStatus
from proxy.telemetry.page import changes
from proxy.telemetry.page.changes import FLAPS, WINDOW, Changes
from proxy.telemetry.page.problems import Found

PEER = PeerStatus(name="host-b", address="b:1", state="up", links=1, streams=0, waiting=0)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_since_when_is_what_is_known_or_when_it_was_seen_first() -> None:
    clock = Clock()
    found = Changes(clock)
    seen, known = Found("host", "host-b", "..."), Found("service", "redis", "...", since=30.0)
    assert found.since([seen, known]) == [1000.0, 970.0]
    clock.now += 5
    assert found.since([known._replace(since=35.0), seen]) == [970.0, 1000.0]
    assert found.since([known._replace(since=1.0)]) == [970.0], "another failure of the same kind, in between"
    clock.now += 5
    assert found.since([seen]) == [1010.0], "it was over"


def test_links_flap_when_they_are_resumed_again_and_again() -> None:
    clock = Clock()
    found = Changes(clock)
    found.look([msgspec.structs.replace(PEER, resumed=7)])
    assert found.flapping == {}, "what was before is over"
    for count in range(1, FLAPS + 1):
        clock.now += 5
        found.look([msgspec.structs.replace(PEER, resumed=7 + count)])
        assert found.flapping == ({} if count < FLAPS else {"host-b": FLAPS})
    clock.now += WINDOW + 1
    found.look([msgspec.structs.replace(PEER, resumed=7 + FLAPS)])
    assert found.flapping == {}
    found.look([])
    assert found._resumed == {}, "a peer that was removed is forgotten"


async def test_it_looks_every_second(autojump_clock: MockClock) -> None:
    looks: list[float] = []
    with trio.move_on_after(3.5):
        await changes.run(lambda: looks.append(trio.current_time()))
    assert len(looks) == 4
