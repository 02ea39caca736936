"""Certificates that the control plane has revoked (sans-IO): asked in each handshake, by both sides."""

from __future__ import annotations

from collections.abc import Iterable


class RevokedSerials:
    """Serial numbers in lower-case hex; `in` asks. There is one object for the life of the proxy."""

    def __init__(self) -> None:
        self._serials: frozenset[str] = frozenset()

    def __contains__(self, serial: str) -> bool:
        return serial in self._serials

    def __len__(self) -> int:
        return len(self._serials)

    def adopt(self, serials: Iterable[str]) -> frozenset[str]:
        """These are all of them from now on; returns those that are new."""
        found = frozenset(serials)
        new = found - self._serials
        self._serials = found
        return new
