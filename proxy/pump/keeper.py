"""What a session has written while no link carries it stays in its out-buffer, for the next one."""

from __future__ import annotations

from collections.abc import Callable

from proxy.mux.replay import Flusher


class Keeper(Flusher):
    """The flusher of a session without a link. It sends nothing.

    Args:
        kept: is called when something was written.
    """

    def __init__(self, kept: Callable[[], None]) -> None:
        self._kept = kept

    def flush(self) -> None:
        """See `Flusher`."""
        self._kept()

    def crashed(self) -> None:
        """Never called: `kept` raises nothing (`Flusher`)."""
