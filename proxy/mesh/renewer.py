"""Keeps a host's certificate in force, and carries out whom the control plane says to trust.

A certificate is renewed, with a fresh key, at half of its life, or when the control plane asks for it. As long as that
fails, the old one stays. One that has expired, or was revoked, cannot renew itself: nobody would know whether it is
still the host's. Then only a new token helps, and the renewer joins again as soon as ``control.token_file`` has one.
The wall clock counts, also when it jumps or the machine has slept (`control.base.wallclock`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container
from typing import Protocol

import structlog
import trio

from control.api import certificates
from control.api.client import Denied, Unreachable
from control.api.identity import BACKDATED
from control.api.mesh import IssueResponse, RenewRequest, TrustBundle
from control.api.refusals import NEEDS_TOKEN
from control.base import wallclock
from control.base.backoff import Backoff
from control.base.reading.times import when
from control.base.wallclock import ClockWatch
from proxy.config.schema import Config
from proxy.errors import ConfigError
from proxy.links.keyring import Keyring
from proxy.mesh import schedule
from proxy.mesh.join import JoinCandidate, NotJoined, check_issued, join, read_token
from proxy.mesh.statedir import StateDir

log = structlog.get_logger()

LOOK = wallclock.LOOK
"""Seconds between looks at the wall clock, and at the token file, when only a new token helps."""
PAUSE, LONGEST_PAUSE = 2.0, 300.0
"""Seconds: windows of the pause after a renewal that failed (`control.base.backoff`). Half a life is left for it."""


class RenewalClient(Protocol):
    """What is needed of the control plane (`control.api.client.ControlClient`)."""

    on_denied: Callable[[Denied], None]

    async def renew(self, request: RenewRequest) -> IssueResponse: ...


class CertificateRenewer:
    """See the module's text. For a host with `control` and without ``links.tls``.

    Args:
        client: shows the keyring's current certificate. Its `on_denied` is the renewer's from now on: a host that was
            revoked learns it from the first thing that it is refused.
        cut: ends the links that were made with a certificate of these (`Pools.cut`).
        random: returns numbers evenly spread over [0, 1).
        now: seconds since 1970.

    Attributes:
        last_error: why the certificate was not renewed; None: it was, or is not due.
    """

    def __init__(
        self,
        config: Config,
        keyring: Keyring,
        client: RenewalClient,
        *,
        cut: Callable[[Container[str]], None],
        random: Callable[[], float],
        now: Callable[[], float] = time.time,
    ) -> None:
        assert config.control is not None
        self.last_error: str | None = None
        self._candidate = JoinCandidate.from_config(config)
        self._state = StateDir(config.control.state_dir)
        self._keyring, self._client, self._cut = keyring, client, cut
        self._random, self._now = random, now
        self._backoff = Backoff(random, start=PAUSE, ceiling=LONGEST_PAUSE)
        self._trust = TrustBundle(bundle="")
        self._unsaved = self._disk_at_fault = False
        self._chance = random()
        self._asked_at: float | None = None
        self._got_at = float("-inf")
        self._retry_at = float("-inf")
        self._clock = ClockWatch(now)
        self._needs_token = ""
        self._tried = self._complained = ""
        self._news = trio.Event()
        client.on_denied = self._denied

    @property
    def failing(self) -> str | None:
        """Why the certificate was not renewed at the last try, though it is time for that; None: it was, or it is not.
        """
        return self.last_error if self._needs_token or self._due <= self._now() else None

    def _denied(self, denied: Denied) -> None:
        if denied.code in NEEDS_TOKEN:
            self._counts_no_longer(NEEDS_TOKEN[denied.code])

    def _counts_no_longer(self, why: str) -> None:
        if not self._needs_token:
            self._needs_token = why
            # Renewing is tried now and then all the same: a refusal may have been about the certificate before.
            self._retry_at = trio.current_time() + LONGEST_PAUSE
            self._news.set()

    def trust(self, trust: TrustBundle) -> None:
        """What the control plane says now. Revoked certificates count no longer, and links made with them end, within
        this call; the rest follows.
        """
        if trust != self._trust:
            self._adopt(trust)
            self._unsaved = True
            self._news.set()

    def _adopt(self, trust: TrustBundle) -> None:
        if new := self._keyring.revoked.adopt(trust.revoked):
            log.warning("certificates have been revoked", serials=sorted(new)[:10], count=len(new))
            self._cut(new)
        if trust.renew_before > self._trust.renew_before:
            self._asked_at = self._now()
        if self._keyring.current.serial in trust.revoked:
            self._counts_no_longer(NEEDS_TOKEN["revoked"])
        self._trust = trust

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the certificate in force until cancelled. What was revoked before the proxy was restarted is revoked by
        the time this is `started`.
        """
        if (before := await trio.to_thread.run_sync(self._state.trust)) is not None:
            self._adopt(before)
        task_status.started()
        while True:
            self._news = trio.Event()
            if self._unsaved:
                await self._save_trust()
            self._look_at_clock()
            invalid = self._invalid
            if invalid or self._needs_token:
                await self._join_again(invalid or self._needs_token)
            due = self._needs_token or self._due <= self._now()
            if due and not invalid and self._retry_at <= trio.current_time():
                await self._renew()
            with trio.move_on_after(LOOK):
                await self._news.wait()

    def _look_at_clock(self) -> None:
        if jump := self._clock.jump():
            log.warning("the wall clock has jumped", seconds=round(jump))
            # What is due now need not wait for what failed before, and a time that was noted is another one.
            self._retry_at = float("-inf")
            self._backoff.reset()
            if self._asked_at is not None:
                self._asked_at += jump
            if jump < 0:
                self._got_at += jump

    @property
    def _invalid(self) -> str:
        """Why the certificate in use is not valid by this host's clock; empty: it is."""
        current, now = self._keyring.current, self._now()
        if now >= current.not_after:
            return f"expired on {when(current.not_after)}"
        if now < current.not_before:
            return f"is not valid before {when(current.not_before)}, and here it is {when(now)}"
        return ""

    @property
    def _due(self) -> float:
        """When the certificate in use is to be renewed."""
        current = self._keyring.current
        issued = current.not_before + BACKDATED
        # Half of what was left of it here when it came: where this host's clock is ahead of the control plane's by half
        # a life, it would be due as soon as it is there.
        due = schedule.renewal(max(issued, self._got_at), current.not_after, self._chance)
        if self._asked_at is not None and issued < self._trust.renew_before:
            due = min(due, schedule.prompt_renewal(self._asked_at, self._chance))
        return due

    async def _renew(self) -> None:
        key = certificates.new_key()
        try:
            reserved = await trio.to_thread.run_sync(self._state.reserve, certificates.key_pem(key))
            try:
                issued = await self._client.renew(RenewRequest(csr=certificates.request(key)))
                check_issued(issued, key)
                await trio.to_thread.run_sync(reserved.fill, issued.certificate, issued.bundle)
            finally:
                reserved.discard()
            await self._reload()
        except Denied as error:
            self._failed(error.text)
            if error.status == 403:
                self._counts_no_longer(NEEDS_TOKEN.get(error.code, "is refused"))
        except (Unreachable, ConfigError, OSError) as error:
            self._failed(str(error))
        else:
            self._backoff.reset()
            # Should the server's clock be behind, so that the new one counts as an old one: not at once again.
            self._asked_at = self._now()
            log.info("certificate renewed", expires=when(self._keyring.current.not_after))

    async def _reload(self) -> None:
        await trio.to_thread.run_sync(self._keyring.reload)
        self._got_at = self._now()
        self._chance, self.last_error, self._complained, self._needs_token = self._random(), None, "", ""

    def _failed(self, error: str) -> None:
        pause = PAUSE / 2 + self._backoff.next()
        self._retry_at = trio.current_time() + pause
        level = log.debug if error == self.last_error else log.warning
        level(
            "certificate not renewed, the old one stays in use",
            error=error,
            good_until=when(self._keyring.current.not_after),
            next_try_s=round(pause),
        )
        self.last_error = error

    async def _join_again(self, what: str) -> None:
        """Join the mesh again with the token in the token file, if it has not been tried yet."""
        try:
            text = await read_token(self._candidate)
        except NotJoined as error:
            return self._complain(what, str(error))
        if text == self._tried:
            return
        try:
            await join(self._candidate, text, self._state)
            await self._reload()
        except (Unreachable, OSError) as error:
            # With no room on the disk the token has not been used: it is good as soon as there is some.
            return self._complain(what, str(error))
        except (NotJoined, ConfigError) as error:
            self._complain(what, str(error))
        self._tried = text

    def _complain(self, what: str, error: str) -> None:
        self.last_error = error
        if error != self._complained:
            self._complained = error
            log.error(f"this host's certificate {what}; only a new token helps", error=error)

    async def _save_trust(self) -> None:
        """Put the bundle in force, and save what the control plane said about trust; if the disk is at fault, try again
        later.
        """
        trust = self._trust
        self._unsaved = False
        try:
            certificates.read_roots(trust.bundle)
            if trust.bundle != await trio.to_thread.run_sync(self._state.bundle):
                await trio.to_thread.run_sync(self._state.save_bundle, trust.bundle)
                await trio.to_thread.run_sync(self._keyring.reload)
                log.info("new CA certificates in use")
            await trio.to_thread.run_sync(self._state.save_trust, trust)
        except (ValueError, ConfigError) as error:
            log.warning("what the control plane says about trust is of no use", error=str(error))
        except OSError as error:
            level = log.debug if self._disk_at_fault else log.warning
            level("what the control plane says about trust cannot be kept, trying on", error=str(error))
            self._disk_at_fault = self._unsaved = True
        else:
            self._disk_at_fault = False
