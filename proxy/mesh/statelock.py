"""One proxy for each ``state_dir``: a lock, and a secret by which the control plane knows a restart.

The lock is a file, held with flock: the kernel lets go of it when the process dies, however that ends, so a restart
never finds it held. A process that takes over from another one (`proxy.agent.handover`) is handed the descriptor, and
holds the same lock. The file says who holds it, for people.

The secret stays in the directory, readable by its owner only, and outlives the process. Who shows it has this
directory; a proxy that was given the same host name by mistake has another one.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import suppress

import structlog

from control.base.wholefile import write_file
from proxy.errors import StartError
from proxy.links.keyring import SECRET, SECRET_BYTES, held_secret

log = structlog.get_logger()

LOCK = "lock"


class StateDirHeld(StartError):
    """Another process holds the lock."""


class StateLock:
    """See the module's text. All methods block on the disk.

    Attributes:
        secret: of the directory; empty: the disk did not take or show one.
        before: that of the process that this one has taken over from; empty: there is none.
        descriptor: of the lock file, while it is held.
    """

    def __init__(self, path: str) -> None:
        self.path, self.secret, self.before = path, "", ""
        self.descriptor: int | None = None
        self._file = os.path.join(path, LOCK)

    def take(self, *, patient: bool = False) -> bool:
        """Make the directory, take the lock, and read the secret, which is made if there is none. Returns whether
        nobody else holds the lock.

        Args:
            patient: another process may hold the lock, as it is to be taken over from; `inherit` follows.

        Raises StateDirHeld if another process holds the lock. A disk that is full, or read-only, is no reason not to
        start: then it is said that nothing is locked.
        """
        with suppress(OSError):
            os.makedirs(self.path, mode=0o700, exist_ok=True)
        alone = self._try()
        if not alone and not patient:
            raise self._held("; stop it, or take its place with --takeover")
        self.secret = held_secret(self.path) or self._made_secret()
        return alone

    @property
    def identity(self) -> tuple[int, int] | None:
        """Device and inode of the lock, by which another process knows it; None: it is not held."""
        if self.descriptor is None:
            return None
        found = os.fstat(self.descriptor)
        return found.st_dev, found.st_ino

    def expect(self, offered: tuple[int, int] | None, pid: int) -> None:
        """The process `pid` is going to be taken over from, and names this lock as its own (`identity`): `inherit`
        follows. Raises StateDirHeld if another process holds the lock.
        """
        with suppress(OSError):
            found = os.stat(self._file)
            if self.descriptor is None and offered == (found.st_dev, found.st_ino):
                return
        self.inherit(None, pid)

    def inherit(self, descriptor: int | None, pid: int | None) -> None:
        """The process `pid` is taken over from and has sent this descriptor of its lock (None: it has none), which is
        ours now. None for `pid`: there is nobody to take over from. Raises StateDirHeld if another process holds the
        lock.
        """
        if descriptor is not None and self.descriptor is None and self._is_lock(descriptor):
            self.descriptor = descriptor
            return
        if descriptor is not None:
            os.close(descriptor)
        if self.descriptor is None and not self._try():
            whom = "there is none in run_dir" if pid is None else f"that is process {pid}"
            raise self._held(f", which is not the proxy to take over from ({whom})")

    def own(self) -> None:
        """This process is the only one that works in the directory from now on: say so in the file."""
        if self.descriptor is not None:
            with suppress(OSError):
                os.ftruncate(self.descriptor, 0)
                os.pwrite(self.descriptor, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Let go of it. (A process that was handed the descriptor goes on holding it.) Idempotent."""
        held, self.descriptor = self.descriptor, None
        if held is not None:
            os.close(held)

    def _try(self) -> bool:
        """Whether nobody else holds it."""
        if self.descriptor is not None:
            return True
        lock = None
        try:
            lock = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if lock is not None:
                os.close(lock)
            if isinstance(error, BlockingIOError):
                return False
            why = (error.strerror or "cannot be locked").lower()
            log.warning("the state_dir is not locked: see that no other proxy uses it", file=self._file, error=why)
            return True
        self.descriptor = lock
        self.own()
        return True

    def _is_lock(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self._file))
        except OSError:
            return False

    def _held(self, hint: str) -> StateDirHeld:
        holder = self._holder()
        who = "another process" if holder is None else f"process {holder}"
        line = f"control.state_dir: {self.path}: {who} uses it{hint}; allowed: one proxy for each state_dir"
        return StateDirHeld(line)

    def _holder(self) -> int | None:
        """The process that has the lock. The file names who took it last: that one may have been killed since, while
        the one that it had taken over from still drains and holds the same lock. None: it cannot be told.
        """
        named = None
        with suppress(OSError, ValueError), open(self._file, encoding="ascii", errors="replace") as file:
            named = int(file.read(20))
        has = False if named is None else self._has_it(named)
        if has:
            return named
        found = None
        with suppress(OSError):
            others = (int(each) for each in os.listdir("/proc") if each.isdecimal() and int(each) != os.getpid())
            found = next((pid for pid in others if self._has_it(pid)), None)
        return named if found is None and has is None else found

    def _has_it(self, pid: int) -> bool | None:
        """Whether a process has the lock's file open; None: it exists, and may not be looked at."""
        place = f"/proc/{pid}/fd"
        try:
            lock = os.stat(self._file)
            for descriptor in os.listdir(place):
                with suppress(FileNotFoundError):
                    # By its name first (in another mount namespace the rest of the path may be another): a process may
                    # have files open on a network mount that is dead, and whoever asks for their status hangs.
                    named = os.path.basename(os.readlink(f"{place}/{descriptor}")) == LOCK
                    if named and os.path.samestat(os.stat(f"{place}/{descriptor}"), lock):
                        return True
        except PermissionError:
            return None
        except OSError:
            return False
        return False

    def _made_secret(self) -> str:
        made = secrets.token_hex(SECRET_BYTES)
        try:
            write_file(os.path.join(self.path, SECRET), f"{made}\n".encode(), 0o600)
        except OSError as error:
            why = (error.strerror or "cannot be written").lower()
            log.warning("no secret in the state_dir: a restart may have to wait for a lease", dir=self.path, error=why)
            return ""
        return made
