from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest

from proxy.door.desired import Container
from proxy.door.engine import EVENTS, Engine, EngineEvent, Unanswered, container
from tests.door.engines import FakeEngine

LABELS = {"hostlane.use": "redis:6379"}


async def test_events_and_containers(tmp_path: Path) -> None:
    with FakeEngine(tmp_path / "e.sock") as fake:
        fake.put("a1", "f00", LABELS)
        fake.put("b2", "f01", {"other": ""})
        async with Engine(str(fake.path)) as engine:
            async with engine.events() as events:
                assert await engine.containers() == ["a1"]
                fake.happen("exec_create: x", "a1")
                fake.happen("health_status: healthy", "a1")
                fake.happen("die", "b2")
                seen = [await anext(events), await anext(events)]
                fake.hang_up()
                assert [event async for event in events] == []
            a, b = {**LABELS, "name": "a1-name"}, {"other": "", "name": "b2-name"}
            assert seen == [EngineEvent("a1", "health_status", "a1-name", a), EngineEvent("b2", "die", "b2-name", b)]
            assert [event.ours for event in seen] == [True, False]
            created = seen[0].container
            assert (created.id, created.name, created.running) == ("a1", "a1-name", False)
            assert created.created > "2100"
            found = await engine.inspect("a1")
            assert found == Container("a1", "a1-name", "a1", True, False, "f00", "none", "none", LABELS)
            assert await engine.inspect("c3") is None
    filters = parse_qs(urlparse(fake.asked[0]).query)["filters"]
    assert json.loads(filters[0]) == {"type": ["container"], "event": [*EVENTS]}


async def test_what_the_list_says_of_one(tmp_path: Path) -> None:
    """Of a container that starts the engine says no more until it has started."""
    with FakeEngine(tmp_path / "e.sock") as fake:
        fake.put("a1", "f00", LABELS)
        fake.put("a11", "f01", {})
        async with Engine(str(fake.path)) as engine:
            found = await engine.listed("a1")
            assert found == Container(
                "a1", "a1-name", "2023-11-14T22:13:20+00:00", mode="none", labels=LABELS
            )
            assert await engine.listed("c3") is None
    assert not [path for path in fake.asked if path.endswith("a1/json")]


async def test_nobody_answers(tmp_path: Path) -> None:
    async with Engine(str(tmp_path / "none.sock")) as engine:
        with pytest.raises(Unanswered, match=r"none\.sock: "):
            await engine.containers()
        with pytest.raises(Unanswered):
            async with engine.events():
                raise AssertionError


async def test_an_engine_that_comes_back_is_another_file(tmp_path: Path) -> None:
    async with Engine(str(tmp_path / "e.sock")) as engine:
        for _ in range(2):
            with FakeEngine(tmp_path / "e.sock"):
                assert await engine.containers() == []


def test_what_inspections_say() -> None:
    found = container({
        "Id": "abc",
        "Name": "/web",
        "Created": "2026",
        "State": {"Running": True, "Paused": True, "Health": {"Status": "unhealthy"}},
        "Config": {"Labels": None},
        "HostConfig": {"NetworkMode": "host"},
        "NetworkSettings": {"SandboxKey": "/run/user/1000/docker/netns/default"},
    })
    assert found == Container("abc", "web", "2026", True, True, "default", "host", "unhealthy", {})
    assert container({"Id": "0123456789abcdef"}).name == "0123456789ab"
