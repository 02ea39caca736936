"""The CA's files on a control server: in one directory, or wherever the operator keeps keys.

``DIRECTORY/<id>.pem`` is the certificate of a CA and ``<id>.key`` its private key. A key that the operator keeps
elsewhere is named, and recognised by what it is, not by its name. No key is ever sent anywhere or overwritten; that of
a CA that was dropped is renamed ``<id>.key.dropped``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress

import structlog
from cryptography import x509

from control.api import certificates
from control.base.errors import StartError
from control.base.wholefile import read_file, write_file
from control.ca import root as ca

log = structlog.get_logger()

MAX_FILE_BYTES = 1 << 20
FORBIDDEN_BITS = 0o027
"""Of a key's mode: nobody but its owner may write it, and strangers may not read it. (A group may: that is how secrets
are mounted into containers.)"""


class KeyFiles:
    """See the module's text. Reads files when asked; nothing is kept open.

    Args:
        directory: need not exist before `create`.
        named: key files elsewhere.
    """

    def __init__(self, directory: str, named: Sequence[str] = ()) -> None:
        self.directory, self.named = directory, tuple(named)
        self._keys: dict[str, certificates.Key] = {}
        self._complained: dict[str, str] = {}

    def create(self, mesh: str, now: float) -> ca.RootCa:
        """The first CA of a mesh. Raises StartError if there is a CA here already, or the files cannot be written.

        With one `named` file that exists, its key is taken; if it does not exist, the key is written there.
        """
        if found := [*self._paths(".pem"), *self._paths(".key")]:
            raise StartError(f"{found[0]}: there is a CA already, and it is not overwritten")
        place = self.named[0] if self.named else None
        if place is not None and os.path.lexists(place):
            key = self._read_key(place)
            self._keys[ca.key_id(key)] = key
            return self._write(ca.new_root(mesh, now, key), None)
        return self._write(ca.new_root(mesh, now), place)

    def add(self, mesh: str, now: float) -> ca.RootCa:
        """One more CA, in the directory. Raises StartError if the files cannot be written."""
        return self._write(ca.new_root(mesh, now), None)

    def roots(self) -> list[x509.Certificate]:
        """The CA certificates in the directory, the oldest first. Raises StartError if one cannot be read."""
        found = []
        for path in self._paths(".pem"):
            try:
                text = read_file(path, MAX_FILE_BYTES, "PEM text").decode("ascii", "replace")
                found.append(certificates.read_roots(text)[0])
            except ValueError as error:
                raise StartError(f"{path}: {error}") from None
        return sorted(found, key=lambda each: each.not_valid_before_utc)

    def check(self) -> None:
        """Read every key. Raises StartError if one cannot be read, or could be read by strangers."""
        for path in (*self._paths(".key"), *self.named):
            key = self._read_key(path)
            self._keys[ca.key_id(key)] = key

    def key(self, root: str) -> certificates.Key | None:
        """The key of the CA with this id, if this server has it. A file that was put there meanwhile is found."""
        if root not in self._keys:
            for path in (*self._paths(".key"), *self.named):
                try:
                    key = self._read_key(path)
                except StartError as error:
                    if self._complained.get(path) != str(error):
                        log.warning("a CA key cannot be used", error=str(error))
                    self._complained[path] = str(error)
                else:
                    self._complained.pop(path, None)
                    self._keys[ca.key_id(key)] = key
        return self._keys.get(root)

    def retire(self, root: str) -> None:
        """This CA has been dropped: its key is not used any more, and its files are renamed."""
        self._keys.pop(root, None)
        for name in (f"{root}.key", f"{root}.pem"):
            path = os.path.join(self.directory, name)
            with suppress(OSError):
                os.rename(path, f"{path}.dropped")

    def _paths(self, end: str) -> Iterator[str]:
        try:
            names = sorted(os.listdir(self.directory))
        except FileNotFoundError:
            return
        except OSError as error:
            raise StartError(f"{self.directory}: {(error.strerror or 'not readable').lower()}") from None
        yield from (os.path.join(self.directory, name) for name in names if name.endswith(end))

    def _read_key(self, path: str) -> certificates.Key:
        try:
            mode = os.stat(path).st_mode
            if mode & FORBIDDEN_BITS:
                raise StartError(f"{path}: found mode {mode & 0o777:04o}; allowed: 0600, or 0640 for a group (chmod)")
            return ca.read_key(read_file(path, MAX_FILE_BYTES, "PEM text"))
        except OSError as error:
            reason = "no such file" if isinstance(error, FileNotFoundError) else (error.strerror or "").lower()
            raise StartError(f"{path}: {reason or 'not readable'}") from None
        except ValueError as error:
            raise StartError(f"{path}: {error}") from None

    def _write(self, root: ca.RootCa, place: str | None) -> ca.RootCa:
        """The key first: a certificate without its key would be taken for a CA."""
        path = os.path.join(self.directory, f"{root.id}.pem")
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            if root.id not in self._keys:
                write_file(place or f"{path[:-4]}.key", certificates.key_pem(root.key).encode(), 0o600, replace=False)
            write_file(path, certificates.pem(root.certificate).encode(), 0o644, replace=False)
        except OSError as error:
            reason = (error.strerror or "not writable").lower()
            raise StartError(f"{error.filename or self.directory}: {reason}") from None
        self._keys[root.id] = root.key
        return root
