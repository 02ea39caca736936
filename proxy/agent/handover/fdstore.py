"""systemd's file descriptor store (sd_pid_notify_with_fds(3)): it keeps the upstreams' listening sockets for the next
process, so that callers wait while there is none, after a crash too. Which of them it has, and under which names. In a
container the door is such a store (`doorstore`).

systemd takes descriptors of a unit with ``FileDescriptorStoreMax=``, and says how many in ``FDSTORE`` (since version
254; the unit may set the variable itself). It passes them to the next process like those of a socket unit; what became
of them there is for `activation`.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

import structlog
import trio

from control.base.system.notify import VARIABLE as NOTIFY_SOCKET
from control.base.system.notify import notify
from control.base.system.unixsock import SocketIdentity
from proxy.outbound.sockets import OpenListener

log = structlog.get_logger()

VARIABLE = "FDSTORE"
MOST = 65536
PAUSE = 1.0
"""Seconds until the next attempt when systemd takes no message."""
_NAME = re.compile(r"hostlane-([0-9a-f]{12})((?:-[0-9]{1,20}){4})?", re.ASCII)


class StoredName(NamedTuple):
    """What the name of a stored socket says: where it listens, as a digest; and which file is its own, None: it is no
    Unix socket.
    """

    place: str
    birth: SocketIdentity | None


def digest(address: str) -> str:
    """What `StoredName.place` is for this address."""
    return hashlib.sha256(os.fsencode(address)).hexdigest()[:12]


def name_of(address: str, birth: SocketIdentity | None) -> str:
    """The name under which a socket is stored. It tells one from all others, and says which file is its own."""
    text = f"hostlane-{digest(address)}"
    return text if birth is None else "-".join([text, *map(str, birth)])


def read_name(name: str) -> StoredName | None:
    """What the name of a passed socket says; None: it was not stored by a proxy."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    if not found[2]:
        return StoredName(found[1], None)
    device, inode, uid, gid = map(int, found[2].split("-")[1:])
    return StoredName(found[1], SocketIdentity(device, inode, uid, gid))


def room(environment: Mapping[str, str] = os.environ) -> int:
    """How many descriptors systemd stores for this unit; 0: none."""
    text = environment.get(VARIABLE, "") if environment.get(NOTIFY_SOCKET) else ""
    return min(int(text), MOST) if text.isascii() and text.isdecimal() else 0


Keep = Callable[[str, socket.socket | None], bool]
"""Has the store keep a socket under a name, or drop what has it (None). False: it takes nothing at the moment."""


def with_systemd(name: str, sock: socket.socket | None) -> bool:
    """`Keep` for systemd."""
    if sock is None:
        return notify(f"FDSTOREREMOVE=1\nFDNAME={name}")
    # FDPOLL: whatever state the socket is in, systemd is not to drop it by itself.
    return notify(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", sock.fileno())


class FdStore:
    """The sockets that systemd, or the door, has of this proxy.

    Args:
        most: how many it takes; passed: names of those that it had before this process began.
    """

    def __init__(self, most: int, passed: Collection[str] = (), keep: Keep = with_systemd) -> None:
        self._keep = keep
        self._most = max(most, len(passed))
        self._names = dict.fromkeys(passed)
        self._ours: dict[OpenListener, str] = {}
        self._changed = trio.Event()
        self._full = False

    def look_again(self) -> None:
        """The sockets are others now."""
        self._changed.set()

    def lost(self) -> None:
        """The store has gone, and has nothing any more."""
        for opened in self._ours:
            opened.kept = False
        self._ours.clear()
        self._names.clear()

    async def run(
        self,
        sockets: Callable[[], Iterable[OpenListener]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Have systemd store these sockets, and no others, whenever they have changed (`look_again`); until cancelled.
        Those that it has are marked as `OpenListener.kept`. It has started when systemd has been told once.
        """
        done = self._most == 0 or self._store(sockets())
        task_status.started()
        while self._most:
            if done:
                await self._changed.wait()
            else:
                await trio.sleep(PAUSE)
            self._changed = trio.Event()
            done = self._store(sockets())

    def _store(self, sockets: Iterable[OpenListener]) -> bool:
        """False: systemd takes no message at the moment, and this is to be called again."""
        wanted = {self._name(each): each for each in sockets if each in self._ours or not each.kept}
        self._ours = {opened: name for name, opened in wanted.items() if opened in self._ours}
        for name in [name for name in self._names if name not in wanted]:
            if not self._keep(name, None):
                return False
            del self._names[name]
        for name, opened in wanted.items():
            if name not in self._names:
                opened.kept = False  # what was kept may have been another socket at the same address
                if len(self._names) >= self._most:
                    self._too_many(len(wanted))
                    continue
                if not self._keep(name, opened.inheritable().sock):
                    return False
                self._names[name] = None
            opened.kept = True
            self._ours[opened] = name
        return True

    @staticmethod
    def _name(opened: OpenListener) -> str:
        return name_of(str(opened.upstream.listen), opened.inheritable().birth)

    def _too_many(self, sockets: int) -> None:
        if not self._full:
            log.warning("systemd stores no more sockets: callers of the others do not wait for the next process",
                        sockets=sockets, at_most=self._most, setting="FileDescriptorStoreMax")  # fmt: skip
        self._full = True
