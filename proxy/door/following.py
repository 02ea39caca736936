"""Following the engine: first what happens, then what is, so that nothing happens in between unseen; and again when it
has been away, and every minute, as its buffer for events is 256 and nobody hears of those that do not fit.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import structlog
import trio

from control.base.backoff import Backoff
from proxy.door.engine import Engine, EngineEvent, Unanswered

log = structlog.get_logger()


async def follow(
    engine: Engine,
    name: str,
    look: Callable[[], Awaitable[None]],
    happened: Callable[[EngineEvent, trio.Nursery], None],
    every: float,
) -> None:
    """Follow it until cancelled.

    Args:
        name: of the engine, for the log.
        look: looks at all containers; may raise Unanswered.
        happened: is told of an event, and what it starts in the nursery may raise Unanswered.
        every: seconds between looks.
    """
    backoff = Backoff(random.random)
    said = ""
    while True:
        try:
            async with engine.events() as events:
                await look()
                log.info("following the engine", engine=name)
                said = ""
                backoff.reset()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_look_again, look, every)
                    async for event in events:
                        happened(event, nursery)
                    nursery.cancel_scope.cancel()
            why = "it has ended"
        except* Unanswered as group:
            why = str(group.exceptions[0])
        if why != said:
            log.warning("the engine does not answer; what is open stays open", kind=(), error=why)
        said = why
        await trio.sleep(backoff.next())


async def _look_again(look: Callable[[], Awaitable[None]], every: float) -> None:
    while True:
        await trio.sleep(every)
        await look()
