"""Three questions that a supervisor asks, each with an answer of its own.

*alive*: the loop turns. If not, only a restart helps.
*ready*: this host can accept and deliver. Its sockets are in place, its certificate is in force, and the control plane
has it registered, or cannot be asked while the last map counts. Other hosts have no part in it.
*mesh*: the other hosts. A restart of this one helps against nothing that is found here.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from control.api.messages import HealthAnswer
from proxy.links.credentials import when
from proxy.links.keyring import Keyring
from proxy.outbound.sockets import ListenerSet
from proxy.pool.pools import Pools
from proxy.pump.heartbeat import Heartbeat
from proxy.telemetry.meshview import state_of

if TYPE_CHECKING:
    from proxy.mesh.follower import MapFollower

MOST_PROBLEMS = 10
"""Problems in an answer; the rest is counted."""


class Health:
    """Answers the three. Owns nothing.

    Args:
        stopping: whether the proxy is about to end; unreachable: why peers cannot reach this host, empty: they can.
        failing: a line for each listening socket where this machine cannot accept.
        follower: None without a control plane.
    """

    def __init__(
        self,
        heart: Heartbeat,
        sockets: ListenerSet,
        pools: Pools,
        keyring: Keyring | None,
        follower: MapFollower | None,
        stopping: Callable[[], bool],
        unreachable: Callable[[], str] = lambda: "",
        failing: Callable[[], list[str]] = list,
    ) -> None:
        self._heart, self._sockets, self._pools = heart, sockets, pools
        self._keyring, self._follower, self._stopping = keyring, follower, stopping
        self._unreachable, self._failing = unreachable, failing

    @property
    def questions(self) -> Mapping[str, Callable[[], Awaitable[HealthAnswer]]]:
        """By path of the admin socket."""
        return {"/alive": self.alive, "/ready": self.ready, "/mesh": self.mesh}

    async def alive(self) -> HealthAnswer:
        """Answers when the pump has turned."""
        await self._heart.beat()
        return answer([])

    async def ready(self) -> HealthAnswer:
        """See the module's text."""
        await self._heart.beat()
        problems = ["it is about to stop"] if self._stopping() else []
        problems += filter(None, [self._unreachable()])
        problems += self._failing()
        problems += certificate(self._keyring, time.time())
        if self._follower is not None:
            problems += registration(self._follower)
        gone = [str(opened.upstream.listen) for opened in await self._sockets.out_of_place()]
        problems += [f"{listen}: the socket's file is gone, so nobody can call" for listen in gone]
        return answer(problems)

    async def mesh(self) -> HealthAnswer:
        """A problem for each peer that is down."""
        return answer(
            [
                f"{name} is down" + (f": {pool.last_error}" if pool.last_error else "")
                for name, pool in self._pools.items()
                if state_of(pool) == "down" or (pool.dialling and pool.last_error is not None and not pool.up)
            ]
        )


def answer(problems: list[str]) -> HealthAnswer:
    """An answer with these problems, or as many as go into one."""
    left = len(problems) - MOST_PROBLEMS
    shown = problems[:MOST_PROBLEMS] + ([f"and {left} more"] if left > 0 else [])
    return HealthAnswer(ok=not problems, problems=shown)


def certificate(keyring: Keyring | None, now: float) -> Iterator[str]:
    """What keeps this host's certificate from being in force at `now`, seconds since 1970."""
    if keyring is None:
        return
    current = keyring.current
    if current.serial in keyring.revoked:
        yield f"this host's certificate {current.serial} has been revoked"
    for bound, over, what in (
        (current.not_after, now > current.not_after, "expired on"),
        (current.not_before, now < current.not_before, "is not valid before"),
    ):
        if over:
            yield f"this host's certificate {what} {when(datetime.fromtimestamp(bound, UTC))}"


def registration(follower: MapFollower) -> Iterator[str]:
    """What keeps the mesh from knowing this host. Nothing does while no control server answers and there is a map."""
    registrar, standing = follower.registration, follower.standing
    if registrar.refused:
        yield f"the control plane refuses this host: {registrar.last_error}"
    elif registrar.displaced:
        yield "another process has registered this host"
    elif registrar.registered is None and (standing.server is not None or standing.heard_at is None):
        without = "" if standing.heard_at is not None else ", and there is no map yet"
        yield f"not registered{without}" + (f": {registrar.last_error}" if registrar.last_error else "")
