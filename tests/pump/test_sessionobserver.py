from __future__ import annotations

from typing import Any, cast

from proxy.errors import CloseReason
from proxy.mux.session import SessionSettings
from proxy.pump.budget import MemoryBudget
from proxy.pump.loop import Pump
from proxy.pump.session import LaneSession
from proxy.pump.sessionobserver import NullObserver
from proxy.pump.turn import LaneReader
from tests.pump.rig import Counting


class Diary(NullObserver):
    def __init__(self) -> None:
        self.told: list[str | tuple[str, LaneSession]] = []

    def session_left(self) -> None:
        self.told.append("left")

    def session_keeps(self, session: LaneSession) -> None:
        self.told.append(("keeps", session))

    def session_carried(self, session: LaneSession) -> None:
        self.told.append(("carried", session))

    def session_over(self, session: LaneSession) -> None:
        assert not session.over
        self.told.append(("over", session))


class Carrying:
    """A link that takes nothing."""

    def flush(self) -> None: ...

    def doom(self, reason: CloseReason, detail: str = "") -> None: ...


async def test_what_becomes_of_a_session_is_told() -> None:
    pump, diary, settings = Pump(MemoryBudget(1 << 20), LaneReader()), Diary(), SessionSettings()
    session = LaneSession(
        pump,
        key="1",
        name="peer/1",
        peer="peer",
        dialled=True,
        local=settings,
        remote=settings,
        replay=1 << 20,
        calls=cast(Any, None),
        usage=Counting(),
        survives=True,
        observer=diary,
    )
    link = cast(Any, Carrying())
    session.carry_on(link)
    session.on_goaway(CloseReason.DRAINING)
    session.suspend()
    session.ping(1)
    pump.settle()
    session.carry_on(link)
    session.end(CloseReason.STOPPED)
    session.end(CloseReason.STOPPED)
    of_it = ("carried", "keeps", "keeps", "carried", "over")
    assert [each for each in diary.told if each != "left"] == [(what, session) for what in of_it]
    assert diary.told[1] == "left"
    pump.shut_down()
