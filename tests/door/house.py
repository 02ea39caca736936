"""A door that runs inside a test, with an engine of the test's, in namespaces that it makes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from proxy.config.schema import DoorConfig
from proxy.door.door import Door
from tests.door.conftest import DIRECTORY


def config(folder: Path) -> DoorConfig:
    """Its section, for this process's user."""
    return DoorConfig(
        directory=f"{folder}/door",
        engine=f"{folder}/engine.sock",
        namespaces=DIRECTORY,
        user=os.geteuid(),
        cdi=f"{folder}/cdi",
    )


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Door]:
    """The door, until the end of the block."""
    async with trio.open_nursery() as nursery:
        door = Door(config(folder))
        await nursery.start(door.run)
        yield door
        nursery.cancel_scope.cancel()
