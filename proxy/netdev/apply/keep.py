"""Interfaces that go away while they are in use are made again: by the proxy if it may, otherwise by the unit that set
the network up (``hostlane net watch``).
"""

from __future__ import annotations

import socket
from collections.abc import Mapping

import structlog
import trio

from proxy.config.schema import Config
from proxy.errors import NetError
from proxy.netdev.apply import manage
from proxy.netdev.plan.steps import NetPlan

log = structlog.get_logger()

LOOK_EVERY = 1.0
"""Seconds between two looks: a system call for each interface."""
RETRY_AFTER = 5.0
"""Seconds until the next attempt after one that has failed."""


async def keep(config: Config, elsewhere: Mapping[str, int], *, late: str | None = None) -> None:
    """Until cancelled, make the configured interfaces again when one is gone, or is another one under its name and so
    has lost its addresses. Somebody else's (``kind: existing``) is waited for. Cancelled, it ends after the change
    under way. What cannot be done is said once, and tried again.

    Args:
        elsewhere: as `manage.planned` takes it.
        late: why the interfaces have not been made at the start (`ready.prepare`): that is done as soon as it can be.
    """
    keeper = _Keeper(config, elsewhere, late)
    while True:  # noqa: ASYNC110 - the kernel is asked
        await trio.sleep(LOOK_EVERY if await keeper.look() else RETRY_AFTER)


class _Keeper:
    def __init__(self, config: Config, elsewhere: Mapping[str, int], late: str | None) -> None:
        self._config, self._elsewhere = config, elsewhere
        self._seen = _indices(config)
        self._late = late is not None
        self._said: set[str] = set() if late is None else {late}
        self._gone: set[str] = set() if late is None else set(config.interfaces)

    async def look(self) -> bool:
        """Whether all is as it should be."""
        now = _indices(self._config)
        for name in now:
            if not now[name] and self._seen[name]:
                self._tell("interface is gone", name)
        self._gone |= {name for name in now if now[name] != self._seen[name]}
        absent = {name for name in self._gone if not now[name] and self._config.interfaces[name].kind == "existing"}
        self._seen = now
        if not self._gone - absent:
            return True
        try:
            done = await trio.to_thread.run_sync(manage.bring_up, self._config, self._elsewhere)
        except NetError as error:
            if str(error) not in self._said:
                self._said.add(str(error))
                cannot = "cannot make an interface" if self._late else "cannot make an interface again"
                self._tell(cannot, *sorted(self._gone), error=str(error))
            return False
        self._made(done)
        return True

    def _made(self, done: NetPlan) -> None:
        for step in done.steps:
            log.info("network changed", change=str(step.do))
        made = "interface made" if self._late else "interface made again"
        for name in sorted(self._gone):
            log.info(made if done.steps else "interface is back", **self._what(name))
        self._late = False
        self._seen = _indices(self._config)
        self._gone.clear()
        self._said.clear()

    def _tell(self, event: str, *names: str, **more: str) -> None:
        for name in names:
            log.warning(event, **self._what(name), **more)

    def _what(self, name: str) -> dict[str, str]:
        return {"interface": name, "addresses": " ".join(self._config.interfaces[name].addresses)}


def _indices(config: Config) -> dict[str, int]:
    """The kernel's number of each configured interface; 0: there is none of that name."""
    found = {}
    for name in config.interfaces:
        try:
            found[name] = socket.if_nametoindex(name)
        except OSError:
            found[name] = 0
    return found
