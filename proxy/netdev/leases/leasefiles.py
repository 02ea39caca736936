"""Leases that outlive a restart: a file for each in ``state_dir/addresses``, named after its segment and part.

A host that starts while the control plane is away uses the address that it had. Programs that run at the same time (the
proxy, ``hostlane net attach``) write different files.
"""

from __future__ import annotations

import os
from contextlib import suppress

import msgspec

from control.api.mesh import AddressLease
from control.base.wholefile import write_file
from proxy.config.netvalues import address, mac
from proxy.errors import NetError

FOLDER = "addresses"
MAX_FILE = 1 << 16


class LeaseFiles:
    """The lease files of one ``state_dir``. All methods block on the disk."""

    def __init__(self, state_dir: str) -> None:
        self.path = os.path.join(state_dir, FOLDER)

    def read(self, segment: str, part: str = "") -> AddressLease | None:
        """The lease that is remembered; None if there is none, or the file is of no use."""
        try:
            with open(self._file(segment, part), "rb") as file:
                found = msgspec.json.decode(file.read(MAX_FILE), type=AddressLease)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None
        return found if (found.segment, found.part) == (segment, part) and is_sound(found) else None

    def write(self, lease: AddressLease) -> None:
        """Remember the lease in place of the one before. Raises NetError, and that one stays."""
        try:
            self._make_folder()
            write_file(self._file(lease.segment, lease.part), msgspec.json.encode(lease), 0o644)
        except OSError as error:
            reason = (error.strerror or "not writable").lower()
            raise NetError(f"control.state_dir: {self.path}: {reason}; the leased address must be kept there") from None

    def forget(self, lease: AddressLease) -> None:
        """Remove the lease's file, if there is one. Raises OSError."""
        with suppress(FileNotFoundError):
            os.unlink(self._file(lease.segment, lease.part))

    def parts(self, container: str | None = None) -> list[AddressLease]:
        """The leases of a container's interfaces; None: of all containers'."""
        try:
            names = sorted(os.listdir(self.path))
        except OSError:
            return []
        split = [name.partition("@") for name in names]
        found = [self.read(segment, f"@{part}") for segment, at, part in split if at]
        return [
            lease
            for lease in found
            if lease is not None and (container is None or lease.part.startswith(f"@{container}:"))
        ]

    def _file(self, segment: str, part: str) -> str:
        return os.path.join(self.path, f"{segment}{part}")

    def _make_folder(self) -> None:
        """Make the directory, owned as the one above it: root may use it first, and the proxy needs not be root."""
        if os.path.isdir(self.path):
            return
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        above = os.stat(os.path.dirname(self.path))
        if os.geteuid() == 0:
            os.chown(self.path, above.st_uid, above.st_gid)


def is_sound(lease: AddressLease) -> bool:
    """Whether an interface can be made of it, whoever has written it."""
    try:
        return address(lease.address) == lease.address and (not lease.mac or mac(lease.mac) == lease.mac)
    except ValueError:
        return False
