"""The processes whose place was taken and which still let their streams finish, as the process sees them that accepts:
it has a *leash* to each of them (`leash`), hands them on to the process that takes its own place, and finds those of a
process that has ended without one. There are at most MOST: what upgrades leave behind must not add up.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial

import structlog
import trio

from control.base.system.commanders import user_refusal
from control.base.system.peercred import credentials_of
from control.base.system.unixsock import bind_unix
from proxy.agent.handover.leash import END, LINK, MAY, TELL, has_ended, heard, listening_in, path_of, send
from proxy.agent.handover.memoryshares import MemoryShares, Share
from proxy.errors import CloseReason, HandshakeError, StartError
from proxy.links.resumemark import is_instance
from proxy.outbound.sockets import InheritableListener

log = structlog.get_logger()

MOST = 2
"""Processes that may drain beside the one that accepts: each holds as much memory as its streams need."""
AT_FIRST = 0.1
"""Seconds until their first words about memory are looked at."""
HURRY = 60.0
"""Seconds that the oldest one then has at most. What it must cut is spread over the last quarter of it."""


class Predecessors:
    """The leashes that a process holds, the oldest first. Owns the sockets.

    Args:
        inherited: name (`Leash.name`) and socket of each.

    Attributes:
        counted: gets the numbers that a process tells; ended: is told when it has ended, or is let go.
        hurried: says whether somebody waits for those numbers.
    """

    def __init__(self, inherited: Iterable[tuple[str, socket.socket]] = ()) -> None:
        self._held = list(inherited)
        self._uses: dict[str, int | None] = {}
        self._told: dict[str, Share] = {}
        self._closed = False
        self.counted: Callable[[str, bytes], None] = lambda process, packet: None
        self.ended: Callable[[str], None] = lambda process: None
        self.hurried: Callable[[], bool] = lambda: False

    def offers(self) -> Iterator[tuple[str, InheritableListener]]:
        """Those of processes that still live, for the one that takes the place of this one. They stay ours."""
        for name, sock in list(self._held):
            if has_ended(sock):
                self._drop(name)
            else:
                yield name, InheritableListener(sock)

    def find(self, run_dir: str) -> None:
        """Hold those, too, which nobody has given this process: whoever accepted before it has ended. They are older
        than those that it was given. Files that dead processes have left are removed. Raises nothing.
        """
        known = self._by_instance()
        found = []
        for instance in listening_in(run_dir):
            if instance not in known and (sock := _meet(path_of(run_dir, instance))) is not None:
                name = f"{credentials_of(sock).pid}-{instance}"
                log.info("a process that was taken over goes on beside this one", process=name)
                found.append((name, sock))
        self._held = found + self._held

    def bound(self) -> None:
        """Tell the oldest ones to end, if there are more than MOST."""
        living = [name for name, _ in self.offers()]
        for name, sock in self._held[: max(0, len(living) - MOST)]:
            log.warning("a process that was taken over must end sooner", process=name, at_most=MOST, within_s=HURRY)
            with suppress(OSError):  # it has ended since
                send(sock, END)
            self._drop(name)

    async def share(self, memory: MemoryShares) -> None:
        """Divide this process's memory with them, again every second, until none is left, `close`, or cancelled."""
        pause = AT_FIRST
        while names := tuple(self._by_instance().values()):
            for name, sock in self._held:
                if name in names and (use := self._heard(name, sock)) is not None:
                    self._uses[name] = use
            memory.heard({name: self._uses.get(name) for name in names})
            for name, share in memory.divide().items():
                self._tell(name, share)
            await trio.sleep(pause)
            pause = AT_FIRST if self.hurried() else TELL
        if not self._closed:
            memory.heard({})
            memory.divide()

    def _tell(self, name: str, share: Share) -> None:
        if self._told.get(name) == share:
            return
        with suppress(OSError, KeyError):  # it does not read, or has ended: again in a second
            send(dict(self._held)[name], b"%s %d %d" % (MAY, *share))
            self._told[name] = share

    @property
    def instances(self) -> tuple[str, ...]:
        """As `links.passing.EarlierProcesses`."""
        return tuple(self._by_instance())

    def pass_on(self, instance: str, connection: socket.socket | trio.socket.SocketType) -> bool:
        """As `links.passing.EarlierProcesses`."""
        name = self._by_instance().get(instance)
        if name is None:
            return False
        try:
            send(dict(self._held)[name], LINK, connection.fileno())
        except BlockingIOError:
            raise HandshakeError(f"process {name} does not take the link", CloseReason.OVERLOADED) from None
        except OSError:
            self._drop(name)
            return False
        return True

    def close(self) -> None:
        """Let go of them: they go on as they are. Idempotent."""
        held, self._held, self._closed = self._held, [], True
        for _, sock in held:
            sock.close()

    def _by_instance(self) -> dict[str, str]:
        """Names by instance, of living processes that know more than one word: earlier versions have other names."""
        found = {name.partition("-")[2]: name for name, _ in self.offers()}
        return {instance: name for instance, name in found.items() if is_instance(instance)}

    def _heard(self, name: str, sock: socket.socket) -> int | None:
        return heard(sock, partial(self.counted, name))

    def _drop(self, name: str) -> None:
        for pair in [pair for pair in self._held if pair[0] == name]:
            self._held.remove(pair)
            self._heard(*pair)  # its last words
            pair[1].close()
            self.ended(name)


def _meet(path: str) -> socket.socket | None:
    """Connect to the process that listens there; None: it has ended, and its file is removed, or cannot be asked."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.setblocking(False)
        sock.connect(path)
        if (why := user_refusal(credentials_of(sock), sock)) is not None:
            log.warning("cannot go on with a process that was taken over", path=path, error=why)
            sock.close()
            return None
    except ConnectionRefusedError:
        sock.close()
        with suppress(StartError):
            bind_unix(path).close()
        return None
    except OSError as error:
        log.warning("cannot go on with a process that was taken over", path=path, error=os.strerror(error.errno or 0))
        sock.close()
        return None
    return sock
