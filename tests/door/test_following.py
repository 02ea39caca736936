from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from proxy.door.engine import Engine, EngineEvent
from proxy.door.following import follow
from tests.door.engines import FakeEngine
from tests.pump.rig import until

Logs = list[MutableMapping[str, Any]]


@pytest.fixture(autouse=True)
def logs() -> Iterator[Logs]:
    with capture_logs() as entries:
        yield entries


async def test_it_looks_when_the_engine_comes_and_from_time_to_time(tmp_path: Path, logs: Logs) -> None:
    looks: list[list[str]] = []
    events: list[EngineEvent] = []
    async with Engine(str(tmp_path / "e.sock")) as engine, trio.open_nursery() as nursery:

        async def look() -> None:
            looks.append(await engine.containers())

        def happened(event: EngineEvent, nursery: trio.Nursery) -> None:
            events.append(event)

        nursery.start_soon(follow, engine, "e", look, happened, 0.05)
        away = "the engine does not answer; what is open stays open"
        await until(lambda: [entry["event"] for entry in logs] == [away], "one line")
        for _ in range(2):
            with FakeEngine(tmp_path / "e.sock") as fake:
                fake.put("a", "x", {"hostlane.use": "redis"})
                looks.clear()
                events.clear()
                await until(lambda: len(looks) >= 3, "looks")

                def heard(fake: FakeEngine = fake) -> bool:
                    fake.happen("start", "a")  # again: it may be about to connect again
                    return bool(events)

                await until(heard, "the event")
                assert (events[0].id, events[0].action) == ("a", "start")
        await until(lambda: [entry["event"] for entry in logs].count(away) >= 3, "a line for each time")
        nursery.cancel_scope.cancel()
