"""Who may command through a Unix socket: by the user, and by the namespaces, of the process at the other end.

A container that has a socket's directory mounted, even read-only, can connect to every socket there, and its uid 0 is
the host's unless it has a user namespace of its own: neither a mode nor a uid keeps it out. So a command counts only if
it comes from a process in the pid and user namespace of this one. Which those are, anybody may read:

- SO_PEERCRED gives no pid for a process in a pid namespace that is not below ours;
- NSpid in /proc/PID/status has a number for each pid namespace from ours down to the process's own;
- /proc/PID/uid_map is that of the process's user namespace, as seen from ours.

(/proc/PID/ns says it outright, but only to who may trace that process.) What cannot be determined is refused: without
/proc, with one that hides other users' processes (hidepid=), with one of another pid namespace, or when the process has
ended meanwhile, as its number may be another one's by then. A process in our own pid and user namespace may still be in
a container, one that was given the host's of both: it was trusted with them.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from dataclasses import dataclass

from control.base.system.peercred import ConnectedSocket, PeerCredentials, credentials_of

__all__ = ["Commanders", "namespace_refusal", "user_refusal"]

_PEERGROUPS = getattr(socket, "SO_PEERGROUPS", 59)
_PEERPIDFD = getattr(socket, "SO_PEERPIDFD", 77)
# Linux 4.13 and 6.5, asm-generic/socket.h; Python's socket module has neither name yet.
_MOST_GROUPS = 256
# socket.getsockopt() takes at most 1024 bytes. The groups of a process that has more cannot be determined.


@dataclass(frozen=True)
class Commanders:
    """Who may command: root, the user of this process, and whoever is in `group`.

    Attributes:
        anywhere: whether from any namespace; otherwise only from those of this process.
        setting: the key of the configuration that says so, for the line that refuses.
    """

    group: int | None = None
    anywhere: bool = False
    setting: str = "admin.from"

    def refusal(self, sock: ConnectedSocket) -> str | None:
        """Why the process at the other end of a connected Unix socket may not command, in one line; None: it may.

        Reads a few small files of /proc. To be called when the connection has been accepted, not later: the longer ago
        it was made, the likelier it is that the process has ended.
        """
        try:
            peer = credentials_of(sock)
        except OSError as error:
            return f"it cannot be determined who asks ({error.strerror}); allowed: {self._allowed()}"
        if (line := user_refusal(peer, sock, self.group)) is not None:
            return f"{line}; allowed: {self._allowed()}"
        line = namespace_refusal(peer, sock)
        if line is None or (self.anywhere and peer.uid != _overflow_uid()):
            return None
        if self.anywhere:
            # Which could be the user of this process, too.
            return f"user {peer.uid} stands for every user that is not mapped here; allowed: {self._allowed()}"
        where = "a process in the namespaces of this one (in a container: docker exec)"
        return f"{line}; allowed: {where}, or any with {self.setting}: any"

    def _allowed(self) -> str:
        users = [f"user {os.geteuid()}"] if os.geteuid() else []
        groups = [] if self.group is None else [f"group {self.group}"]
        return " and ".join(["root", *users, *groups])


def user_refusal(peer: PeerCredentials, sock: ConnectedSocket, group: int | None = None) -> str | None:
    """Why a process is none of root, this process's user, and the members of `group`; None: it is one."""
    if peer.uid in (0, os.geteuid()) or (group is not None and group in (peer.gid, *_groups(sock))):
        return None
    return f"user {peer.uid} may not"


def namespace_refusal(peer: PeerCredentials, sock: ConnectedSocket) -> str | None:
    """Why a process is not known to be in the pid and user namespace of this one; None: it is there."""
    if not peer.pid:
        return "it comes from another pid namespace, such as a container's"
    try:
        if _numbers("self") != [os.getpid()]:
            return "it cannot be determined which namespace it comes from, as /proc here is of another pid namespace"
        numbers, elsewhere = _numbers(str(peer.pid)), _text(f"{peer.pid}/uid_map") != _text("self/uid_map")
        lives = _lives(peer.pid, sock)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        return f"it cannot be determined which namespace process {peer.pid} is in (/proc/{peer.pid}: {why})"
    if not lives:
        return f"it cannot be determined which namespace process {peer.pid} is in, as it has ended"
    if numbers != [peer.pid]:
        return f"process {peer.pid} is in another pid namespace, such as a container's"
    if elsewhere:
        return f"process {peer.pid} is in another user namespace, such as a container's"
    return None


def _groups(sock: ConnectedSocket) -> list[int]:
    """The supplementary groups of the process when it connected; none where they cannot be determined."""
    try:
        found = sock.getsockopt(socket.SOL_SOCKET, _PEERGROUPS, 4 * _MOST_GROUPS)
    except OSError:
        return []
    return [number for (number,) in struct.iter_unpack("I", found)]


def _lives(pid: int, sock: ConnectedSocket) -> bool:
    """Whether the process that connected is still there, now that files of /proc/PID have been read: then they were
    its own, and not of one that got its number afterwards. Before Linux 6.5 all that can be known is that one is there.
    """
    try:
        (peer,) = struct.unpack("i", sock.getsockopt(socket.SOL_SOCKET, _PEERPIDFD, 4))
    except OSError as error:
        return error.errno == errno.ENOPROTOOPT and os.path.exists(f"/proc/{pid}")
    try:
        poll = select.poll()
        poll.register(peer, select.POLLIN)  # readable when the process has ended (pidfd_open(2))
        return not poll.poll(0)
    finally:
        os.close(peer)


def _numbers(process: str) -> list[int]:
    """Its numbers in each pid namespace, from that of /proc down to its own. ValueError: the kernel does not say."""
    for line in _text(f"{process}/status").splitlines():
        if line.startswith("NSpid:"):
            return [int(number) for number in line.split()[1:]]
    raise ValueError("no NSpid in status")


def _text(name: str) -> str:
    with open(f"/proc/{name}", encoding="ascii", errors="replace") as file:
        return file.read()


def _overflow_uid() -> int:
    try:
        return int(_text("sys/kernel/overflowuid"))
    except (OSError, ValueError):
        return 65534  # the kernel's default
