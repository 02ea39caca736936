"""This host makes itself known to the control plane, stays known, and leaves.

It registers its whole record, says every third of the lease that it is still there, and registers again when it is told
that nobody knows it, or when its record has changed. Nothing here stops the data: what goes wrong is said, and tried
again.

A name is one proxy's. With its record the host shows the secret of its state_dir, by which the control plane knows a
restart. Whoever has another one is refused while this proxy is alive, and this one is told. It is *displaced* when it
is the other way round: another proxy has the name. Then it tries on, and is registered when that one has gone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

import msgspec
import structlog
import trio

from control.api.client import Denied, Unreachable
from control.api.mesh import (
    MOST_EDGES,
    MOST_PROBLEM_BYTES,
    MOST_PROBLEMS,
    MOST_TOLD_BYTES,
    AliveResponse,
    HostRecord,
    Namesake,
    RegisterResponse,
    ToldProblem,
)
from control.api.messages import CLOCKS_DIFFER, EdgeInfo, Edges
from control.api.refusals import NEEDS_TOKEN
from control.base.backoff import Backoff
from proxy.mesh.statelock import StateLock

log = structlog.get_logger()

PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds: windows of the pause after a registration that failed (`control.base.backoff`). The client has tried every
server for several seconds by then."""
SOONEST = 2.0
"""Seconds between two signs of life, if news is not to wait for the usual time: a control server's page shows nothing
fresher."""
LEAVE_TIMEOUT = 0.5
"""Seconds that leaving may take: whoever cannot say that it goes is missed when its lease ends. Local callers wait
meanwhile for the next process."""


class RegistrationClient(Protocol):
    """What is needed of the control plane (`control.api.client.ControlClient`)."""

    async def register(
        self, record: HostRecord, *, secret: str = "", before: str = "", yields: bool = False
    ) -> RegisterResponse: ...

    async def alive(
        self,
        name: str,
        instance: str,
        edges: tuple[EdgeInfo, ...] | None = None,
        problems: tuple[ToldProblem, ...] = (),
    ) -> AliveResponse: ...

    async def leave(self, name: str, instance: str) -> None: ...


class HostRegistrar:
    """See the module's text.

    Args:
        record: this host as it is now.
        forgotten: called when the control plane had lost sight of this host.
        random: returns numbers evenly spread over [0, 1).
        claim: enters this host's addresses in the address book, before it registers. Raises as the registry does.
        state: has the secret of the host's state_dir. Without one, a restart may have to wait until the process before
            counts as gone.
        displaced: told when this proxy has become displaced, and when it is registered again.
        now: seconds since 1970.

    Attributes:
        registered: the answer in force; None: none is, or it is not known to be.
        last_error: why the last attempt has failed, if it has. What the control plane has answered stands here until
            it answers again: that it cannot be reached meanwhile says less.
        displaced: another proxy is registered as this host, or was when the control plane last spoke of that.
        refused: the control plane has refused this host, for another reason, when it last answered.
        barred: it refused the certificate that this host has: it is revoked, say.
        namesake: another proxy that was refused as this host lately.
        clock_ahead: by how many seconds this host's clock was ahead of the control server's when that last answered;
            None: it has not said.
        edges: returns who talks to whom on this host, the busiest first; it may take a second.
        problems: returns what is wrong on this host, what matters most first; it may take as long.
        unreachable: returns why peers cannot reach this host, which is not registered then; empty: they can.
    """

    def __init__(
        self,
        registry: RegistrationClient,
        record: Callable[[], HostRecord],
        forgotten: Callable[[], None],
        random: Callable[[], float],
        claim: Callable[[], Awaitable[None]] | None = None,
        *,
        state: StateLock | None = None,
        displaced: Callable[[bool], None] = lambda displaced: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.registered: RegisterResponse | None = None
        self.last_error: str | None = None
        self.displaced = self.refused = self.barred = self._yields = False
        self.namesake: Namesake | None = None
        self.clock_ahead: float | None = None
        self.unreachable: Callable[[], str] = lambda: ""
        self.edges: Callable[[], Awaitable[Edges]] = _no_edges
        self.problems: Callable[[], Awaitable[Sequence[ToldProblem]]] = _no_problems
        self._state, self._tell_displaced = state, displaced
        self._registry, self._record, self._forgotten, self._random = registry, record, forgotten, random
        self._backoff = Backoff(random, start=PAUSE, ceiling=LONGEST_PAUSE)
        self._claim = claim
        self._news, self._last = False, -math.inf
        self._resting = trio.CancelScope()
        self._again, self._now = trio.Event(), now
        self._told: HostRecord | None = None
        self._said: str | None = None

    def renew(self) -> None:
        """Register again, if the record has changed or the control plane does not know this host."""
        self._again.set()

    def tell(self) -> None:
        """What is wrong on this host has changed: the next sign of life comes sooner, but not within `SOONEST` of the
        last one.
        """
        self._news = True
        self._resting.deadline = min(self._resting.deadline, self._last + SOONEST)

    def seen(self, epoch: str, present: bool) -> None:
        """The map, of the store with this `epoch`, has this host or has it not (`present`): register again if it is
        missing, or was registered with another store.
        """
        if self.registered is not None and (self.registered.epoch != epoch or not present):
            self.registered = None
            self._again.set()

    def bar(self, error: Denied) -> None:
        """The watch was refused as whatever comes with this host's certificate is."""
        self._denied(error)

    def vacant(self) -> None:
        """The map has no host of this name: if another proxy had it, it has gone."""
        if self.displaced:
            self._again.set()

    async def run(self) -> None:
        """Register, stay registered, and register again where that is needed, until cancelled."""
        while True:
            self._again = trio.Event()
            try:
                if self.registered is None or self._told != self._record():
                    await self._register()
                else:
                    await self._stay(self.registered)
            except Unreachable as error:
                self._failed(str(error))
                if not self.refused and not self.displaced:
                    self.last_error = str(error)
                await self._pause()
            except Denied as error:
                self._denied(error)
                if error.code != "unknown_host":
                    await self._pause()

    async def leave(self) -> None:
        """Say that this process of the host goes, also if another one is registered: that one need not be told of this
        one any more. Takes at most `LEAVE_TIMEOUT`, and raises nothing.
        """
        if self._told is None:
            return
        with trio.move_on_after(LEAVE_TIMEOUT) as scope:
            try:
                await self._registry.leave(self._told.name, self._told.instance)
            except (Unreachable, Denied) as error:
                log.warning("the control plane does not know that this host leaves", error=str(error))
        if scope.cancelled_caught:
            log.warning("the control plane does not know that this host leaves", error="no answer")

    async def _register(self) -> None:
        if why := self.unreachable():
            raise Unreachable(why)
        record = self._record()
        # Before the answer: whether a request that was cut off has arrived is not known, and leaving must take it back.
        self._told, self.registered = record, None
        if self._claim is not None:
            await self._claim()
        secret, before = ("", "") if self._state is None else (self._state.secret, self._state.before)
        self.registered = await self._registry.register(record, secret=secret, before=before, yields=self._yields)
        self._backoff.reset()
        self._accepted()
        self._displace(False)
        log.info("registered", address=record.address, services=len(record.services), lease_s=self.registered.lease)

    async def _stay(self, registered: RegisterResponse) -> None:
        """Say once that the host is still there, after a quarter to a third of the lease; or return as soon as there is
        reason to register again. Sooner, if there is news (`tell`).
        """
        with trio.move_on_after(registered.lease / 3 * (0.75 + self._random() / 4)) as self._resting:
            if self._news:
                self.tell()
            await self._again.wait()
            return
        assert self._told is not None
        self._news, self._last = False, trio.current_time()
        problems = at_most(await self.problems(), MOST_PROBLEMS, MOST_PROBLEM_BYTES)
        left = MOST_TOLD_BYTES - len(msgspec.json.encode(problems))
        edges = at_most((await self.edges()).edges, MOST_EDGES, left)
        answer = await self._registry.alive(self._told.name, self._told.instance, edges, problems)
        self._accepted()
        self._met(answer.namesake)
        self._compare_clocks(answer.now)

    def _met(self, namesake: Namesake | None) -> None:
        before, self.namesake = self.namesake, namesake
        if namesake is not None and namesake != before:
            assert self._told is not None
            log.warning(
                "another proxy wants to be this host, and is refused", here=self._told.address, other=str(namesake)
            )
        elif namesake is None and before is not None:
            log.info("the other proxy of this name has gone", other=str(before))

    def _compare_clocks(self, theirs: float | None) -> None:
        """Their time, as it was when they answered. A difference is logged when it begins and when it has ended."""
        before, self.clock_ahead = self.clock_ahead, None if theirs is None else self._now() - theirs
        differed, differs = (each is not None and abs(each) >= CLOCKS_DIFFER for each in (before, self.clock_ahead))
        if differs and not differed:
            assert self.clock_ahead is not None
            log.warning("this host's clock and the control server's differ", ahead_s=round(self.clock_ahead))
        elif differed and not differs:
            log.info("this host's clock and the control server's agree again")

    def _displace(self, displaced: bool) -> None:
        before, self.displaced = self.displaced, displaced
        # Who has been replaced by a proxy that has the same state_dir, a copy perhaps, must not replace it in turn.
        self._yields = self._yields and displaced
        if displaced != before:
            self.namesake = None
            self._tell_displaced(displaced)

    async def _pause(self) -> None:
        with trio.move_on_after(self._backoff.next()):
            await self._again.wait()

    def _accepted(self) -> None:
        self.refused = self.barred = False
        self.last_error = self._said = None

    def _denied(self, error: Denied) -> None:
        known = error.code in ("unknown_host", "superseded", "in_use")
        self.refused, self.barred = not known, error.code in NEEDS_TOKEN
        if error.code == "unknown_host":
            self.registered, self.last_error = None, str(error)
            self._forgotten()
            log.warning("the control plane had lost sight of this host, which registers again")
        elif error.code in ("superseded", "in_use"):
            here = None if self._told is None else self._told.address
            level = log.debug if str(error) == self._said else log.error
            level("another proxy is this host; this one waits until it has gone", here=here, error=str(error))
            self.registered, self.last_error, self._said = None, str(error), str(error)
            self._yields = self._yields or error.code == "superseded"
            self._displace(True)
        else:
            if self.barred:
                self.registered = None
            self._failed(str(error))
            self.last_error = str(error)

    def _failed(self, error: str) -> None:
        level = log.debug if error == self._said else log.warning
        level("not registered" if self.registered is None else "cannot say that this host is there", error=error)
        self._said = error


async def _no_edges() -> Edges:
    return Edges(edges=[])


async def _no_problems() -> Sequence[ToldProblem]:
    return ()


Item = TypeVar("Item", EdgeInfo, ToldProblem)


def at_most(items: Sequence[Item], count: int, size: int) -> tuple[Item, ...]:
    """The first of them, as many as a host tells, in so many bytes of JSON."""
    found = tuple(items[:count])
    while found and len(msgspec.json.encode(found)) > size:
        found = found[:-1]
    return found
