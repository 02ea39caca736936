"""Containers that a hook has handed over, before their application's first instruction (`proxy.cdi`).

The hook brings descriptors of the container's network namespace and of its first process, and waits. What is open in
such a container is opened through that namespace, wherever the engine has a file of it, and for as long as that process
lives: it ends with it, at once, though no engine told of it. The engine holds the container back meanwhile, and would
answer an inspection when it has started: what it is asked for is a list.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace

import structlog
import trio

from control.base.system.peercred import credentials_of
from proxy.cdi.messages import FromHook, Ready, Refused, Starting, Stopped
from proxy.door.channel import Broken, Channel, attend_all
from proxy.door.desired import Container, Desired
from proxy.door.engine import Unanswered
from proxy.door.labels import CALLER, OFFER, concerned
from proxy.door.rooms import Rooms

__all__ = ["Hooks"]

log = structlog.get_logger()

PATIENCE = 15.0
"""Seconds that a hook may take; hooks wait for less."""
_ELSEWHERE = (OFFER, CALLER)
"""Labels that open nothing inside the container."""


@dataclass(eq=False)
class HandedContainer:
    """A container of which a hook has brought descriptors, which it owns until `close`.

    Attributes:
        namespace: of its network namespace; process: of its first process (pidfd).
        name: as people know it; taken: it is one of `Hooks`, which close it.
        asked: it counts among what there is to be; `settled` is set when that is done, `lacking` is what could not be.
        watching: as long as its end is waited for; closed: set by `close`.
    """

    namespace: int
    process: int
    name: str = ""
    taken: bool = False
    asked: bool = False
    lacking: tuple[str, ...] = ()
    settled: trio.Event = field(default_factory=trio.Event)
    watching: trio.CancelScope = field(default_factory=trio.CancelScope)
    closed: trio.Event = field(default_factory=trio.Event)

    @property
    def path(self) -> str:
        """Of a file that is the namespace, for this process."""
        return f"/proc/self/fd/{self.namespace}"

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        poll = select.poll()
        poll.register(self.process, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        """Close both descriptors. Once, and when nobody waits for them any more."""
        os.close(self.namespace)
        os.close(self.process)
        self.closed.set()


class Hooks:
    """All of them. Owns their descriptors until `close`.

    Args:
        look: what is known of a container, as far as the engine's list says it; None: it has no such container. Raises
            Unanswered.
        changed: called when something is to be opened or closed: `placed` and `settle` follow.
        ended: called with a container's id when its process has ended: what is open in its namespace is to be closed.
    """

    def __init__(
        self,
        look: Callable[[str], Awaitable[Container | None]],
        changed: Callable[[], None],
        ended: Callable[[str], None],
    ) -> None:
        self._look, self._changed, self._ended = look, changed, ended
        self._handed: dict[str, HandedContainer] = {}
        self._leaving: list[HandedContainer] = []

    # What the door goes by

    def placed(self, containers: Iterable[Container]) -> list[Container]:
        """The containers, of which those that were handed over run, in the namespaces that were brought. Called when no
        namespace of the last answer is being entered any more.
        """
        # Only now: a path that is being entered must not become another container's.
        leaving, self._leaving = self._leaving, []
        for handed in leaving:
            handed.close()
        found = []
        for each in containers:
            handed_over = self._handed.get(each.id)
            if handed_over is not None:
                handed_over.asked = True
                each = replace(each, running=True, starting=not each.running, namespace=handed_over.path)
            found.append(each)
        return found

    def settle(self, wanted: Desired, rooms: Rooms) -> None:
        """What is `wanted`, made of `placed`, is open now, as far as it can be."""
        for id, handed in [*self._handed.items()]:
            if handed.asked and not handed.settled.is_set():
                before = f"container {handed.name}: "
                lines = [line for line in (*wanted.problems, *rooms.lacks) if line.startswith(before)]
                whys = [line.removeprefix(before) for line in lines]
                handed.lacking = tuple(why for why in whys if not why.startswith(_ELSEWHERE))
                handed.settled.set()
            if handed.asked and id not in wanted.rooms:
                self.end(id)  # nothing is to be open there, and to have the namespace would keep it alive

    def holds(self, id: str) -> bool:
        """Whether the container was handed over and its process lives, whatever is told late of an earlier one."""
        handed = self._handed.get(id)
        return handed is not None and handed.alive

    def end(self, id: str) -> None:
        """Nothing is open there any more: give its namespace up. Idempotent."""
        handed = self._handed.pop(id, None)
        if handed is not None:
            handed.watching.cancel()
            handed.settled.set()
            self._leaving.append(handed)
            self._changed()

    def close(self) -> None:
        """Close all descriptors."""
        for handed in (*self._handed.values(), *self._leaving):
            handed.close()
        self._handed.clear()
        self._leaving.clear()

    # What hooks say

    async def serve(self, listening: socket.socket) -> None:
        """Accept hooks until cancelled."""
        await attend_all(listening, "a hook", self._attend)

    async def _attend(self, sock: socket.socket) -> None:
        """One hook; then, as long as its container lives, the end of that."""
        peer = credentials_of(sock)
        if peer.uid != 0:
            log.warning("not a hook", uid=peer.uid, pid=peer.pid, allowed="root")
            return sock.close()
        channel: Channel[FromHook] = Channel(sock, FromHook)
        handed: HandedContainer | None = None
        id = ""
        try:
            with trio.move_on_after(PATIENCE):
                message, descriptors = await channel.receive()
                id = message.id
                if isinstance(message, Stopped) or len(descriptors) != 2:
                    for descriptor in descriptors:
                        os.close(descriptor)
                    if isinstance(message, Starting):
                        raise Broken("it has brought no namespace")
                    answer: Ready | Refused = await self._stopped(id)
                else:
                    handed = HandedContainer(descriptors[0], descriptors[1])
                    answer = await self._started(id, handed)
                channel.say(answer)
                await channel.flush()
        except (Broken, OSError) as error:
            log.info("a hook was not answered", container=id, why=str(error))
        finally:
            channel.close()
            if handed is not None and not handed.taken:
                handed.close()
        if handed is not None and self._handed.get(id) is handed:
            await self._until_its_end(id, handed)

    async def _started(self, id: str, handed: HandedContainer) -> Ready | Refused:
        try:
            known = await self._look(id)
        except Unanswered as error:
            return Refused(f"the engine does not answer the door ({error})")
        if known is None:
            return Refused("the door's engine (door.engine) has no such container")
        if not concerned(known.labels):
            return Ready()
        self._ended(id)  # whatever was there of an earlier start
        handed.name = known.name
        handed.taken = True
        self._handed[id] = handed
        self._changed()
        await handed.settled.wait()
        if handed.lacking:
            return Refused("; ".join(handed.lacking))
        return Ready()

    async def _stopped(self, id: str) -> Ready:
        handed = self._handed.get(id)
        if handed is None or not handed.alive:
            self._ended(id)
            if handed is not None:
                await handed.closed.wait()
        return Ready()

    async def _until_its_end(self, id: str, handed: HandedContainer) -> None:
        with handed.watching:
            await trio.lowlevel.wait_readable(handed.process)
        if self._handed.get(id) is handed:
            self._ended(id)
