"""A control plane in memory, which does what a test tells it to: also what a real one never should."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from control.api.client import Denied, Unreachable
from control.api.mesh import (
    SILENCE,
    AliveResponse,
    HostRecord,
    MapSnapshot,
    Namesake,
    RegisterResponse,
    ToldProblem,
    WatchMessage,
)
from control.api.messages import EdgeInfo
from tests.tools.sockets import PATIENCE


class Plane:
    """Answers as `control.api.client.ControlClient` does.

    Attributes:
        calls: what was asked: ``("register", record)``, ``("alive", name, instance)``, ``("leave", name, instance)``,
            ``("watch", epoch, after)``.
        down: nobody answers.
        shown: secret, the one before, and whether it yields, of the last registration.
        edges, problems: what was told with the last of these; None: nothing.
        namesake, now: told whoever says that it is alive.
        denied: what to refuse the next registrations and signs of life with, by name of the call.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.down = False
        self.edges: tuple[EdgeInfo, ...] | None = None
        self.problems: tuple[ToldProblem, ...] = ()
        self.denied: dict[str, Denied] = {}
        self.shown = ("", "", False)
        self.namesake: Namesake | None = None
        self.now: float | None = None
        self.epoch, self.revision, self.lease = "one", 1, 15.0
        self.first: WatchMessage | None = None
        self._watchers: list[trio.MemorySendChannel[WatchMessage]] = []
        self._news = trio.Event()

    def say(self, message: WatchMessage) -> None:
        """Tell all who watch."""
        for watcher in self._watchers:
            watcher.send_nowait(message)

    def cut(self) -> None:
        """End all watches."""
        for watcher in self._watchers:
            watcher.close()
        self._watchers.clear()

    async def asked(self, name: str, count: int = 1) -> tuple[Any, ...]:
        """The call of that name that is number `count`, once there is one."""
        with trio.fail_after(PATIENCE * 10):  # by the test's own clock, which may be an impatient one
            while len(found := [call for call in self.calls if call[0] == name]) < count:
                await self._news.wait()
        return found[count - 1]

    def count(self, name: str) -> int:
        return sum(call[0] == name for call in self.calls)

    async def register(
        self, record: HostRecord, *, secret: str = "", before: str = "", yields: bool = False
    ) -> RegisterResponse:
        self.shown = (secret, before, yields)
        await self._ask("register", record)
        return RegisterResponse(epoch=self.epoch, revision=self.revision, lease=self.lease)

    async def alive(
        self,
        name: str,
        instance: str,
        edges: tuple[EdgeInfo, ...] | None = None,
        problems: tuple[ToldProblem, ...] = (),
    ) -> AliveResponse:
        self.edges, self.problems = edges, problems
        await self._ask("alive", name, instance)
        return AliveResponse(namesake=self.namesake, now=self.now)

    async def leave(self, name: str, instance: str) -> None:
        await self._ask("leave", name, instance)

    @asynccontextmanager
    async def watch(self, epoch: str = "", after: int = 0, instance: str = "") -> AsyncIterator[Any]:
        await self._ask("watch", epoch, after)
        send, receive = trio.open_memory_channel[WatchMessage](1000)
        self._watchers.append(send)
        if self.first is not None:
            send.send_nowait(self.first)
        yield Watched(receive)

    async def _ask(self, *call: Any) -> None:
        await trio.lowlevel.checkpoint()
        self.calls.append(call)
        news, self._news = self._news, trio.Event()
        news.set()
        if self.down:
            raise Unreachable("no control server answers: plane: connection refused")
        if (denied := self.denied.get(call[0])) is not None:
            raise denied


class Watched:
    server = "plane"

    def __init__(self, receive: trio.MemoryReceiveChannel[WatchMessage]) -> None:
        self._receive = receive

    def __aiter__(self) -> Watched:
        return self

    async def __anext__(self) -> WatchMessage:
        with trio.move_on_after(SILENCE):
            return await anext(self._receive)
        raise Unreachable("plane: nothing came for 15 s")


def snapshot(*records: HostRecord, epoch: str = "one", revision: int = 1) -> MapSnapshot:
    return MapSnapshot(epoch=epoch, revision=revision, hosts=records)


async def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait for it, by whatever clock the test has."""
    with trio.fail_after(PATIENCE * 10):
        while not condition():
            await trio.sleep(0.01)
    assert condition(), what
