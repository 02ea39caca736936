"""Reading the configuration file again, for ``hostlane reload`` and SIGHUP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import structlog
import trio

from control.api.messages import ReloadResult
from control.base.reading.filemount import is_gone, mount_source
from control.base.system.notify import reloading
from proxy.config.difference import ConfigDifference
from proxy.config.schema import Config, load
from proxy.errors import ConfigError, NotApplied
from proxy.telemetry.metrics.process import ReloadCount

log = structlog.get_logger()

LOOK = 5.0
"""Seconds between two looks whether the file has been replaced where it comes from."""
_REPLACED = (
    "a mount of this one file, which has been replaced where it comes from: only the old one can be seen here. Mount"
    " its directory instead (and restart the container once for that)"
)


class Reload:
    """Calling it reads the file, applies it, and logs the result. Reloads run one at a time.

    Args:
        file: path of the configuration file; None: the proxy was not started from one.
        apply, preview: as `Parts.rebase` and `Parts.preview`.
        tell: tells systemd (`notify.Notices`).

    Attributes:
        count: what has become of reloads.
        stale: why changes of the file cannot be seen; empty: they could at the last look.
    """

    def __init__(
        self,
        file: str | None,
        apply: Callable[[Config], ConfigDifference],
        preview: Callable[[Config], ConfigDifference],
        tell: Callable[[str], None],
    ) -> None:
        self._file, self._apply, self._preview, self._tell = file, apply, preview, tell
        self.count = ReloadCount()
        self._source = None if file is None else mount_source(file)
        self.stale = ""
        self._one = trio.Lock()
        self._asked = False

    async def asked(self) -> None:
        """As calling it, without a result (SIGHUP). Returns at once if another such request is still waiting for its
        turn: that one has not read the file yet, and serves both.
        """
        if not self._asked:
            self._asked = True
            async with self._one:
                self._asked = False
                await self._reload()

    async def watch(self) -> None:
        """Look every LOOK seconds whether the file is still the one that was meant, until cancelled; a change is logged
        once. Returns at once for a file that is no mount of its own: its name leads to whatever takes its place.
        """
        while self._file is not None and self._source is not None:
            # In a worker thread, as a slow file system must not stall the pump.
            before, self.stale = self.stale, await trio.to_thread.run_sync(self._replaced, self._file)
            if self.stale and not before:
                log.warning("changes of the configuration cannot be seen", error=self.stale)
            elif before and not self.stale:
                log.info("changes of the configuration can be seen again", file=self._file)
            await trio.sleep(LOOK)

    async def __call__(self, dry_run: bool = False) -> ReloadResult:
        """Reload, or only say what that would do. Raises nothing; the result says what is wrong."""
        async with self._one:
            return await (self._try(self._preview, "possible") if dry_run else self._reload())

    async def _reload(self) -> ReloadResult:
        self._tell(reloading())
        answer = await self._try(self._apply, "applied")
        self.count.done(answer.outcome)
        self._tell("READY=1")
        if answer.outcome == "applied":
            log.info("configuration applied", file=self._file, changes=answer.changes)
        else:
            log.error("configuration not applied", file=self._file, problems=answer.problems)
        return answer

    async def _try(
        self, use: Callable[[Config], ConfigDifference], outcome: Literal["applied", "possible"]
    ) -> ReloadResult:
        if self._file is None:
            return ReloadResult(outcome="refused", problems=["the proxy was not started from a file"])
        try:
            # In a worker thread, as a slow file system must not stall the pump.
            config = await trio.to_thread.run_sync(self._load, self._file)
            difference = use(config)
        except ConfigError as error:
            return ReloadResult(outcome="wrong", problems=error.problems)
        except NotApplied as error:
            return ReloadResult(outcome="refused", problems=error.problems)
        return ReloadResult(outcome=outcome, changes=[str(change) for change in difference.changes])

    def _load(self, file: str) -> Config:
        """Raises ConfigError, and NotApplied if the file that was meant cannot be seen from here."""
        if why := self._replaced(file):
            raise NotApplied([why])
        return load(file)

    def _replaced(self, file: str) -> str:
        """Why the file that was meant cannot be seen from here; empty: it can. Blocks on the file system."""
        source = mount_source(file)
        gone = source is not None and (source != self._source or is_gone(source))
        return f"{file}: {_REPLACED}" if gone else ""
