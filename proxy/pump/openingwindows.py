"""The windows of all upstreams, each of which bounds how many of its calls may be under way (sans-IO)."""

from __future__ import annotations

from proxy.pump.opening import Asked
from proxy.pump.openings import OpeningWindow


class OpeningWindows:
    """Those of one proxy."""

    def __init__(self) -> None:
        self._windows: dict[str, OpeningWindow] = {}

    def of(self, upstream: str) -> OpeningWindow:
        """The window of the upstream of this name."""
        found = self._windows.get(upstream)
        if found is None:
            found = self._windows[upstream] = OpeningWindow()
        return found

    def keep(self, upstreams: set[str]) -> None:
        """Forget the windows of all others, but for those that calls have not left yet."""
        self._windows = {name: window for name, window in self._windows.items() if name in upstreams or window.count}

    def link_lost(self, session: Asked) -> None:
        """Its calls wait for another link, where they are in nobody's way."""
        for window in self._windows.values():
            window.link_lost(session)
