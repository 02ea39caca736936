"""One process that is a proxy: what it needs before its parts can be built (the lock of its state_dir, a certificate, a
leased address), and another try where the proxy to take over from ends just then.
"""

from __future__ import annotations

import random
from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING

import trio

from proxy.agent.agent import Agent
from proxy.agent.handover.activation import PassedSockets
from proxy.agent.handover.receiver import PredecessorEnded
from proxy.config.schema import Config
from proxy.errors import StartError
from proxy.mesh.statelock import StateDirHeld, StateLock
from proxy.netdev.leases.leases import LeasedAddresses
from proxy.pump.options import knowing_ourselves

if TYPE_CHECKING:
    pass

STARTS, PAUSE = 20, 0.1
"""How often a start is tried while the proxy to take over from is ending, and seconds between two."""


async def run(
    config: Config,
    file: str | None = None,
    takeover: bool = False,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run one proxy until SIGTERM or SIGINT.

    Args:
        file: the file that the configuration was read from, for a reload; None: it is not from a file.
        takeover: take the place of the proxy that runs in the same run_dir, if one does.

    Raises StartError if it cannot start on this machine, and ConfigError if its certificate files are wrong. If it is
    cancelled, it ends all streams at once; nothing stays behind but directories.
    """
    passing: tuple[type[StartError], ...] = (PredecessorEnded,)
    with closing(PassedSockets()) as passed:
        for tries_left in reversed(range(STARTS)):
            try:
                with knowing_ourselves():
                    return await _run(config, file, takeover, passed, task_status)
            except Exception as error:
                if not tries_left or not _consists_of(error, passing):
                    raise
            passing = (PredecessorEnded, StateDirHeld)  # of its files, the system closes the lock at some time, too
            await trio.sleep(PAUSE)


def _consists_of(error: Exception, kinds: tuple[type[StartError], ...]) -> bool:
    return isinstance(error, kinds) or (isinstance(error, ExceptionGroup) and error.split(kinds)[1] is None)


async def _run(
    config: Config, file: str | None, takeover: bool, passed: PassedSockets, task_status: trio.TaskStatus[None]
) -> None:
    book, state = LeasedAddresses(), None
    with ExitStack() as held:
        if config.control is not None:
            from proxy.mesh.join import ensure
            from proxy.netdev.leases.addressbook import at_start

            state = StateLock(config.control.state_dir)
            held.callback(state.close)
            # Before anything is written there; a certificate is made by the process that works there.
            if await trio.to_thread.run_sync(partial(state.take, patient=takeover)):
                await ensure(config, random.random)
            book = await at_start(config, random.random)
        agent = Agent(config, file, takeover=takeover, book=book, state=state, passed=passed)
        await agent.run(task_status=task_status)
