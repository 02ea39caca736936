"""What proxies were told of the directories that containers have mounted (`hostlane.sockets`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from proxy.door.desired import SocketDirectory
from proxy.door.messages import NoSockets, Sockets
from proxy.door.rooms import Tell

__all__ = ["Directories"]


class Directories:
    """All of them.

    Args:
        tell: see `rooms.Tell`.
    """

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._told: dict[str, SocketDirectory] = {}

    def __iter__(self) -> Iterator[Sockets]:
        """The message for each."""
        return iter([_message(name, wanted) for name, wanted in self._told.items()])

    def become(self, wanted: Mapping[str, SocketDirectory]) -> None:
        """Tell what differs."""
        for name in self._told.keys() - wanted.keys():
            del self._told[name]
            self._tell(NoSockets(name), [])
        for name, each in wanted.items():
            if self._told.get(name) != each:
                self._told[name] = each
                self._tell(_message(name, each), [])


def _message(name: str, wanted: SocketDirectory) -> Sockets:
    return Sockets(name, list(wanted.services), wanted.caller)
