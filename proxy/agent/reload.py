"""Reading the configuration file again, for ``hostlane reload`` and SIGHUP."""

from __future__ import annotations

from collections.abc import Callable

import structlog
import trio

from control.api.messages import ReloadResult
from proxy.config.difference import ConfigDifference
from proxy.config.schema import Config, load
from proxy.errors import ConfigError, NotApplied
from proxy.telemetry.notify import notify, reloading

log = structlog.get_logger()


class Reload:
    """Calling it reads the file, applies it, and logs what became of it. One at a time.

    Args:
        file: its path; None: the proxy was not started from one.
        apply: as `Agent.apply`.
    """

    def __init__(self, file: str | None, apply: Callable[[Config], ConfigDifference]) -> None:
        self._file, self._apply = file, apply
        self._one = trio.Lock()
        self._asked = False

    async def asked(self) -> None:
        """As calling it, for whoever waits for no answer (SIGHUP): what is asked while one waits already is the same
        one, for it has not read the file yet.
        """
        if not self._asked:
            self._asked = True
            async with self._one:
                self._asked = False
                await self._reload()

    async def __call__(self) -> ReloadResult:
        """Never raises; what is wrong stands in the answer."""
        async with self._one:
            return await self._reload()

    async def _reload(self) -> ReloadResult:
        notify(reloading())
        answer = await self._try()
        notify("READY=1")
        if answer.outcome == "applied":
            log.info("configuration applied", file=self._file, changes=answer.changes)
        else:
            log.error("configuration not applied", file=self._file, problems=answer.problems)
        return answer

    async def _try(self) -> ReloadResult:
        if self._file is None:
            return ReloadResult(outcome="refused", problems=["the proxy was not started from a file"])
        try:
            # A file system may be slow, and the thread that reads it is not that of the data.
            config = await trio.to_thread.run_sync(load, self._file)
            difference = self._apply(config)
        except ConfigError as error:
            return ReloadResult(outcome="wrong", problems=error.problems)
        except NotApplied as error:
            return ReloadResult(outcome="refused", problems=error.problems)
        return ReloadResult(outcome="applied", changes=[str(change) for change in difference.changes])
