"""What a host keeps of the control plane's trust over restarts, in its ``state_dir``.

Key, certificate and CA bundle belong together, and a crash may come at any moment. So each set of the three is a
directory of its own, written and flushed to the disk before the symbolic link ``identity`` is swapped, in one step, to
point to it. Whoever reads through the link finds the old set or the new one. ``trust.json`` is what the control plane
said last about trust: what is revoked must stay so when the proxy restarts without the control plane.

A token works once, and what it buys must be kept. So a set is *reserved* before anything is asked for: its key, and
room for the rest, are on the disk by then.
"""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import suppress
from types import TracebackType
from typing import Self

import msgspec

from control.api.mesh import TrustBundle
from control.base.wholefile import sync_directory, write_file
from proxy.config.schema import TlsFiles
from proxy.errors import StartError
from proxy.links.keyring import CA, CERTIFICATE, IDENTITY, KEY, held_files

SET = "identity-"
TRUST = "trust.json"
MAX_TRUST = 64 << 20
"""Bytes: a million revoked serials."""
ROOM = 32 << 10
"""Bytes that are reserved for a certificate, and for a bundle: one takes 1 KiB, and so does each CA."""


class StateDir:
    """See the module's text. All methods block on the disk.

    Attributes:
        files: where the set is that is in force, if there is one.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.files: TlsFiles = held_files(path)

    def prepare(self) -> None:
        """Make the directory, mode 0700, and see that it can be written. Raises StartError."""
        try:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
            if not os.access(self.path, os.W_OK | os.X_OK):
                raise PermissionError(13, os.strerror(13))
        except OSError as error:
            reason = (error.strerror or "not writable").lower()
            raise StartError(f"control.state_dir: {self.path}: {reason}; allowed: a directory of the proxy") from None

    @property
    def holds_identity(self) -> bool:
        """Whether there is a set of key, certificate and bundle, good or bad."""
        return os.path.lexists(os.path.join(self.path, IDENTITY))

    def save(self, key: str, certificate: str, bundle: str) -> None:
        """Put a new set (PEM) in force. Raises OSError, and the old one stays in force."""
        with self.reserve(key) as reserved:
            reserved.fill(certificate, bundle)

    def reserve(self, key: str) -> ReservedSet:
        """A new set that has this key (PEM), and room for the rest; ``with`` removes it unless it was filled. Raises
        OSError.
        """
        return ReservedSet(self, key)

    def save_bundle(self, bundle: str) -> None:
        """Put the key and certificate that are in force, with another bundle, in force. Raises as `StateDir.save`."""
        self.save(_text(self.files.key), _text(self.files.certificate), bundle)

    def bundle(self) -> str:
        """The CA bundle in force. Raises OSError."""
        return _text(self.files.ca)

    def save_trust(self, trust: TrustBundle) -> None:
        """Replace ``trust.json``. Raises OSError, and the old one stays."""
        write_file(os.path.join(self.path, TRUST), msgspec.json.encode(trust), 0o600)

    def trust(self) -> TrustBundle | None:
        """What ``trust.json`` holds; None if there is none, or it is damaged."""
        try:
            with open(os.path.join(self.path, TRUST), "rb") as file:
                return msgspec.json.decode(file.read(MAX_TRUST), type=TrustBundle)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None

    def in_force(self) -> str:
        """The name of the set in force; empty: there is none."""
        try:
            return os.readlink(os.path.join(self.path, IDENTITY))
        except OSError:
            return ""

    def sweep(self, keep: set[str]) -> None:
        """Remove what is not in force, and what a crash left; the set before stays, for whoever reads it just now."""
        for name in os.listdir(self.path):
            path = os.path.join(self.path, name)
            if name.startswith(SET) and name.endswith(".link"):
                with suppress(OSError):
                    os.unlink(path)
            elif name.startswith(SET) and name not in keep:
                shutil.rmtree(path, ignore_errors=True)


class ReservedSet:
    """A set that is on the disk and not in force yet, made by `StateDir.reserve`."""

    def __init__(self, state: StateDir, key: str) -> None:
        name = f"{SET}{secrets.token_hex(8)}"
        self._state, self._name = state, name
        self._folder = os.path.join(state.path, name)
        self._link = os.path.join(state.path, f"{name}.link")
        self._filled = False
        os.mkdir(self._folder, 0o700)
        try:
            write_file(os.path.join(self._folder, KEY), key.encode(), 0o600)
            for file in (CERTIFICATE, CA):
                write_file(os.path.join(self._folder, file), bytes(ROOM), 0o644)
            os.symlink(name, self._link)
            sync_directory(state.path)
        except BaseException:
            self.discard()
            raise

    def fill(self, certificate: str, bundle: str) -> None:
        """Put the set in force, with these (PEM). Raises OSError, and the old one stays in force: not for want of room,
        unless one of the two is longer than `ROOM`.
        """
        for file, text in ((CERTIFICATE, certificate), (CA, bundle)):
            _overwrite(os.path.join(self._folder, file), text.encode())
        before = self._state.in_force()
        os.rename(self._link, os.path.join(self._state.path, IDENTITY))
        self._filled = True
        sync_directory(self._state.path)
        self._state.sweep({self._name, before})

    def discard(self) -> None:
        """Remove it, unless it was filled. Raises nothing."""
        if not self._filled:
            with suppress(OSError):
                os.unlink(self._link)
            shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()


def _overwrite(path: str, content: bytes) -> None:
    """In place, since the room is there; on the disk on return. Nobody reads the file before."""
    with open(path, "r+b") as file:
        file.write(content)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


def _text(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read()
