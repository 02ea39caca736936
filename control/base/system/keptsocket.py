"""Sockets whose files somebody removes while they are in use: rm, systemd-tmpfiles, a directory that is made anew.

The kernel tells nobody, and a file that has no name any more cannot be given one: so whoever has such a socket looks
from time to time, and binds a new one to the path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog

from control.base.errors import StartError
from control.base.system.unixsock import BoundUnixSocket, rebind_unix

__all__ = ["LOOK", "KeptSocket", "SocketKeeper"]

log = structlog.get_logger()

LOOK = 5.0
"""Seconds between looks at sockets' files."""


class SocketKeeper:
    """Has sockets bound again, and says so; what is in the way it says once.

    Attributes:
        in_the_way: by address, why a socket whose file was gone could not be bound again at the last look.
    """

    def __init__(self) -> None:
        self.in_the_way: dict[str, str] = {}

    def mend(self, gone: Mapping[str, Callable[[], bool]]) -> None:
        """Have these bound again, by address: all those whose files are gone at this look. Raises nothing.

        Args:
            gone: returns whether it has bound the socket again; raises StartError if it cannot.
        """
        self.in_the_way = {address: why for address, why in self.in_the_way.items() if address in gone}
        for address, restore in gone.items():
            try:
                if restore():
                    self.in_the_way.pop(address, None)
                    log.warning("somebody had removed a socket's file: it is bound again", listen=address)
            except StartError as error:
                if self.in_the_way.get(address) != str(error):
                    log.error("a socket's file is gone, and cannot be bound again", error=str(error))
                self.in_the_way[address] = str(error)


class KeptSocket:
    """A socket at which a process itself is asked, or commanded. It owns it.

    Attributes:
        bound: the socket, another one after `restore`.
    """

    def __init__(
        self, bound: BoundUnixSocket, *, mode: int, group: int | None = None, prepare: Callable[[], None] = lambda: None
    ) -> None:
        """`mode`, `group`: of its file, as it is made again; `prepare` makes its directory, or raises StartError."""
        self.bound = bound
        self._mode, self._group, self._prepare = mode, group, prepare

    @property
    def address(self) -> str:
        """As configurations and logs write it."""
        return f"unix:{self.bound.path}"

    def restore(self) -> BoundUnixSocket:
        """Bind the path again. Returns the socket that has lost its file, which the caller closes as soon as nobody
        accepts there. Raises StartError, and nothing has changed.
        """
        self._prepare()
        lost = self.bound
        self.bound = rebind_unix(lost, mode=self._mode, group=self._group)
        return lost

    def close(self) -> None:
        """As `BoundUnixSocket.close`."""
        self.bound.close()
