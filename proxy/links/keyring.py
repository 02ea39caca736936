"""The credentials in use, and their files: looked at again and again, taken over when they have changed and are good.

A link that is up never notices: it made its handshake with what was there then. What is wrong with new files is said
once, and the old credentials stay, for as long as it takes (a good certificate must not be thrown away because its
renewal failed).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Self

import structlog
import trio

from proxy.config.schema import Config, TlsFiles
from proxy.errors import ConfigError
from proxy.links.credentials import Credentials, RequiredIdentity, read, when
from proxy.links.revoked import RevokedSerials

log = structlog.get_logger()

INTERVAL = 1.0
"""Seconds between looks. Files are taken over when two looks in a row find the same change, so that a certificate is
not read before its key is written: within two seconds of the last write."""
EXPIRES_SOON = 1 / 3
"""Share of its validity left, from which on a certificate is due: renewal at half-life has failed by then."""

IDENTITY = "identity"
"""In ``control.state_dir``: the set of three files that the control plane issued (`proxy.mesh.statedir`)."""
KEY, CERTIFICATE, CA = "key.pem", "certificate.pem", "ca.pem"

Stamp = tuple[tuple[int, ...], ...]
"""What changes when a file does: device, inode, size, and time of the last write, for each of them."""


class Keyring:
    """See the module's text.

    Args:
        now: seconds since 1970.

    Attributes:
        current: what new handshakes use.
        revoked: peers' certificates that they refuse.

    Raises ConfigError when the files are not good to begin with.
    """

    def __init__(self, files: TlsFiles, identity: RequiredIdentity, now: Callable[[], float] = time.time) -> None:
        self._files, self._identity, self._now = files, identity, now
        self._seen = self._used = _stamp(files)
        self._refused: tuple[Stamp, str] | None = None
        self.revoked = RevokedSerials()
        self._lock = threading.Lock()
        self.current = self._read()
        self._warned = ""

    @classmethod
    def from_config(cls, config: Config) -> Self | None:
        """The keyring that the configuration asks for; None if this host needs no certificate: ``security: none``, and
        no control plane. Raises ConfigError.
        """
        files = config.links.tls
        if config.control is not None:
            files = files or held_files(config.control.state_dir)
        elif config.links.security == "none":
            return None
        assert files is not None, "proxy.config.check"
        return cls(files, RequiredIdentity(config.mesh, config.host))

    async def watch(self) -> None:
        """Look until cancelled. (Files may be on a file system that is slow: never in the trio thread.)"""
        while True:
            self.check_expiry()
            await trio.sleep(INTERVAL)
            await trio.to_thread.run_sync(self.look, abandon_on_cancel=True)

    def reload(self) -> None:
        """Take over files that have just been replaced as a whole. Raises ConfigError, and the old ones stay in use."""
        with self._lock:
            stamp = _stamp(self._files)
            self.current = self._read()
            self._seen = self._used = stamp
            self._refused, self._warned = None, ""

    def look(self) -> None:
        """Take the files over if they have changed and two looks agree about it. Bad ones are tried again at each
        look (it may be the machine that is at fault), and complained of once.
        """
        with self._lock:
            self._look()

    def _look(self) -> None:
        stamp = _stamp(self._files)
        changed, self._seen = stamp != self._seen, stamp
        if changed or stamp == self._used:
            return
        try:
            self.current = self._read()
        except ConfigError as error:
            refused = stamp, "; ".join(error.problems)
            if refused != self._refused:
                log.warning("new certificate files refused, the old ones stay in use", error=refused[1])
            self._refused = refused
        else:
            self._used, self._refused, self._warned = stamp, None, ""
            log.info("new certificate files in use", expires=when(datetime.fromtimestamp(self.current.not_after, UTC)))

    def _read(self) -> Credentials:
        return replace(read(self._files, self._identity, self._now()), revoked=self.revoked)

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


def held_files(state_dir: str) -> TlsFiles:
    """Where the files are that the control plane has issued for this host."""
    folder = os.path.join(state_dir, IDENTITY)
    key, certificate, ca = (os.path.join(folder, name) for name in (KEY, CERTIFICATE, CA))
    return TlsFiles(key=key, certificate=certificate, ca=ca)


def _stamp(files: TlsFiles) -> Stamp:
    return tuple(_stamp_of(path) for path in (files.certificate, files.key, files.ca))


def _stamp_of(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError as error:
        return (error.errno or 0,)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
