"""Two proxies of one name: whose watch is connected here, and who was refused lately because another one is alive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import msgspec

from control.api.mesh import Namesake

__all__ = ["Namesakes"]


class Namesakes:
    """See the module's text. Times and leases are the store's: what is refused is forgotten when its item goes."""

    def __init__(self) -> None:
        self._watches = Counter[tuple[str, str]]()
        self._refused: dict[str, Namesake] = {}

    @contextmanager
    def watching(self, host: str | None, instance: str) -> Iterator[None]:
        """As long as the block lasts, this process of the host has a watch at this control server."""
        watch = (host or "", instance)
        self._watches[watch] += 1
        try:
            yield
        finally:
            self._watches[watch] -= 1
            if not self._watches[watch]:
                del self._watches[watch]

    def watches(self, host: str, instance: str) -> bool:
        """Whether this process of the host has a watch here."""
        return (host, instance) in self._watches

    def refused(self, host: str, instance: str) -> Namesake | None:
        """The process, other than this one, that was refused as the host."""
        found = self._refused.get(host)
        return found if found is not None and found.instance != instance else None

    def was_refused(self, host: str, instance: str) -> bool:
        """Whether it is this process that was refused as the host."""
        found = self._refused.get(host)
        return found is not None and found.instance == instance

    def put(self, host: str, value: bytes | None) -> None:
        """What the store has now under ``namesakes/HOST``; None: nothing. What cannot be read counts as nothing."""
        self._refused.pop(host, None)
        if value is not None:
            with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                self._refused[host] = msgspec.json.decode(value, type=Namesake)

    def replace(self, items: Mapping[str, bytes]) -> None:
        """All that the store has, by host."""
        self._refused.clear()
        for host, value in items.items():
            self.put(host, value)
