"""The credentials in use, and their files: looked at again and again, taken over when they have changed and are good.

A link that is up never notices: it made its handshake with what was there then. What is wrong with new files is said
once, and the old credentials stay, for as long as it takes (a good certificate must not be thrown away because its
renewal failed).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Self

import structlog
import trio

from proxy.config import Config, TlsFiles
from proxy.errors import ConfigError
from proxy.links.credentials import Identity, read, when

log = structlog.get_logger()

INTERVAL = 1.0
"""Seconds between looks. Files are taken over when two looks in a row find the same change, so that a certificate is
not read before its key is written: within two seconds of the last write."""
EXPIRES_SOON = 1 / 3
"""Share of its validity left, from which on a certificate is due: renewal at half-life has failed by then."""

Stamp = tuple[tuple[int, ...], ...]
"""What changes when a file does: device, inode, size, and time of the last write, for each of them."""


class Keyring:
    """See the module's text.

    Args:
        now: seconds since 1970.

    Attributes:
        current: what new handshakes use.

    Raises ConfigError when the files are not good to begin with.
    """

    def __init__(self, files: TlsFiles, identity: Identity, now: Callable[[], float] = time.time) -> None:
        self._files, self._identity, self._now = files, identity, now
        self._seen = self._used = _stamp(files)
        self._refused: tuple[Stamp, str] | None = None
        self.current = read(files, identity, now())
        self._warned = ""

    @classmethod
    def from_config(cls, config: Config) -> Self | None:
        """The keyring that the configuration asks for; None with ``security: none``. Raises ConfigError."""
        if config.links.security == "none":
            return None
        assert config.links.tls is not None, "proxy.configcheck"
        return cls(config.links.tls, Identity(config.mesh, config.host))

    async def watch(self) -> None:
        """Look until cancelled. (Files may be on a file system that is slow: never in the trio thread.)"""
        while True:
            self.check_expiry()
            await trio.sleep(INTERVAL)
            await trio.to_thread.run_sync(self.look, abandon_on_cancel=True)

    def look(self) -> None:
        """Take the files over if they have changed and two looks agree about it. Bad ones are tried again at each
        look (it may be the machine that is at fault), and complained of once.
        """
        stamp = _stamp(self._files)
        changed, self._seen = stamp != self._seen, stamp
        if changed or stamp == self._used:
            return
        try:
            self.current = read(self._files, self._identity, self._now())
        except ConfigError as error:
            refused = stamp, "; ".join(error.problems)
            if refused != self._refused:
                log.warning("new certificate files refused, the old ones stay in use", error=refused[1])
            self._refused = refused
        else:
            self._used, self._refused, self._warned = stamp, None, ""
            log.info("new certificate files in use", expires=when(datetime.fromtimestamp(self.current.not_after, UTC)))

    def check_expiry(self) -> None:
        """Say that the certificate is due, or has expired: once each. (Links that are up stay.)"""
        begin, end = self.current.not_before, self.current.not_after
        left = end - self._now()
        state = "expired" if left < 0 else "expires soon" if left < (end - begin) * EXPIRES_SOON else ""
        if state and state != self._warned:
            level = log.error if left < 0 else log.warning
            expires = when(datetime.fromtimestamp(end, UTC))
            level(f"this host's certificate {state}", expires=expires, file=self._files.certificate)
        self._warned = state


def _stamp(files: TlsFiles) -> Stamp:
    return tuple(_stamp_of(path) for path in (files.certificate, files.key, files.ca))


def _stamp_of(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError as error:
        return (error.errno or 0,)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
