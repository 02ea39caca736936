"""Certificates that the control plane has revoked (sans-IO). Both sides check them in each handshake."""

from __future__ import annotations

from collections.abc import Iterable


class RevokedSerials:
    """A set of serial numbers in lower-case hex, checked with `in`. One object serves for the life of the proxy."""

    def __init__(self) -> None:
        self._serials: frozenset[str] = frozenset()

    def __contains__(self, serial: str) -> bool:
        return serial in self._serials

    def __len__(self) -> int:
        return len(self._serials)

    def adopt(self, serials: Iterable[str]) -> frozenset[str]:
        """Replace the set by these serial numbers. Returns those that were not in it."""
        found = frozenset(serials)
        new = found - self._serials
        self._serials = found
        return new
