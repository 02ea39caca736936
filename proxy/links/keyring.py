"""The credentials in use, and the watch on their files: when the files have changed and are good, they are used from
then on.

Links that are up keep what they made their handshake with. If new files are bad, that is logged once, and the old
credentials stay in use however long that takes (a failed renewal must not cost the certificate that is still good).
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Self

import structlog
import trio

from proxy.config.schema import Config, TlsFiles
from proxy.errors import ConfigError
from proxy.links.credentials import MAX_FILE_BYTES, Credentials, RequiredIdentity, read, when
from proxy.links.revoked import RevokedSerials

log = structlog.get_logger()

INTERVAL = 1.0
"""Seconds between looks at the files. New ones are read when two looks in a row find the same change, so that a
certificate is not read before its key is written: within two seconds of the last write."""
EXPIRES_SOON = 1 / 3
"""Fraction of its validity below which we warn that a certificate expires: renewal at half-life has failed by then."""

IDENTITY = "identity"
"""In ``control.state_dir``: the set of three files that the control plane issued (`proxy.mesh.statedir`)."""
KEY, CERTIFICATE, CA = "key.pem", "certificate.pem", "ca.pem"
SECRET, SECRET_BYTES = "secret", 32
"""In ``control.state_dir`` too; in hex."""

Stamp = tuple[bytes | int, ...]
"""For each file a digest of its content, or the errno of why it cannot be read: equal stamps mean unchanged files. Not
size and time of the last write: both stay when a file is written twice within one tick of the clock (on some file
systems two seconds), or put back with its old time."""


class Keyring:
    """Holds the credentials in use, and replaces them when their files change.

    Args:
        now: returns seconds since 1970.
        issued: as `proxy.links.credentials.read` takes it, for the first credentials.

    Attributes:
        current: the credentials for new handshakes.
        revoked: certificates of peers that new handshakes refuse.

    Raises ConfigError when the files are not good to begin with.
    """

    def __init__(
        self,
        files: TlsFiles,
        identity: RequiredIdentity,
        now: Callable[[], float] = time.time,
        *,
        issued: bool = False,
    ) -> None:
        self._files, self._identity, self._now = files, identity, now
        self._seen = self._used = _stamp(files)
        self._refused: tuple[Stamp, str] | None = None
        self.revoked = RevokedSerials()
        self._lock = threading.Lock()
        self.current = self._read(issued)
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
        return cls(files, RequiredIdentity(config.mesh, config.host), issued=config.links.tls is None)

    async def watch(self) -> None:
        """Look at the files every INTERVAL until cancelled. (In a worker thread, as their file system may be slow.)"""
        while True:
            self.check_expiry()
            await trio.sleep(INTERVAL)
            await trio.to_thread.run_sync(self.look, abandon_on_cancel=True)

    def reload(self) -> None:
        """Use files that have just been replaced as a whole. Raises ConfigError, and the old ones stay in use."""
        with self._lock:
            stamp = _stamp(self._files)
            self.current = self._read()
            self._seen = self._used = stamp
            self._refused, self._warned = None, ""

    def look(self) -> None:
        """Use the files if they have changed and two looks in a row found the same. Bad ones are tried again at each
        look (the cause may be the machine, and pass), but the same complaint is logged once.
        """
        with self._lock:
            self._look()

    def _look(self) -> None:
        stamp = _stamp(self._files)
        if stamp is None:
            return
        changed, self._seen = stamp != self._seen, stamp
        if changed or (stamp == self._used and self._refused is None):
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

    def _read(self, issued: bool = True) -> Credentials:
        """The credentials in the files. New ones are not asked whether a CA of the bundle issued the certificate, as
        the first ones are: who takes a CA out of the bundle wants it distrusted now, also by a host that still has its
        certificate from it.
        """
        found = read(self._files, self._identity, self._now(), issued=issued)
        return replace(found, revoked=self.revoked)

    def check_expiry(self) -> None:
        """Log that the certificate expires soon, or has expired, once each. (Links that are up stay.)"""
        begin, end = self.current.not_before, self.current.not_after
        left = end - self._now()
        state = "expired" if left < 0 else "expires soon" if left < (end - begin) * EXPIRES_SOON else ""
        if state and state != self._warned:
            level = log.error if left < 0 else log.warning
            expires = when(datetime.fromtimestamp(end, UTC))
            level(f"this host's certificate {state}", expires=expires, file=self._files.certificate)
        self._warned = state


def held_secret(state_dir: str) -> str:
    """The secret in a ``state_dir`` (`proxy.mesh.statelock`); empty: none that is of use. Blocks on the disk."""
    with suppress(OSError), open(os.path.join(state_dir, SECRET), encoding="ascii", errors="replace") as file:
        found = file.read(2 * SECRET_BYTES + 2).strip()
        # What is cut short, or somebody else's file, is no secret; a new one takes its place.
        if len(found) == 2 * SECRET_BYTES and found.isalnum():
            return found
    return ""


def held_files(state_dir: str) -> TlsFiles:
    """The paths of the files that the control plane has issued for this host."""
    folder = os.path.join(state_dir, IDENTITY)
    key, certificate, ca = (os.path.join(folder, name) for name in (KEY, CERTIFICATE, CA))
    return TlsFiles(key=key, certificate=certificate, ca=ca)


def _stamp(files: TlsFiles) -> Stamp | None:
    """None: this machine lacks a descriptor or memory for looking, which says nothing of the files."""
    try:
        return tuple(_stamp_of(path) for path in (files.certificate, files.key, files.ca))
    except OSError:
        return None


def _stamp_of(path: str) -> bytes | int:
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read(MAX_FILE_BYTES + 1)).digest()
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise
        return error.errno or 0
