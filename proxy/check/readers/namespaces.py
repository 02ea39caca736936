"""Other network namespaces of this machine: what hangs on an interface of this one by a macvlan or a virtual function.

Only root may enter them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from proxy.check.report import Unchecked
from proxy.errors import NetError
from proxy.netdev.observe.namespaces import open_namespace, run_inside
from proxy.netdev.observe.observe import NetInterface, NetSnapshot, snapshot

T = TypeVar("T")

_OWN = "/proc/thread-self/ns/net"


class ChildInterface(Struct, frozen=True, kw_only=True):
    """An interface in another namespace whose frames go through one of ours."""

    label: str
    """Whose namespace it is: a container's id, or a process."""
    pid: int
    interface: NetInterface
    addresses: tuple[str, ...]
    parent: NetInterface


def children(here: NetSnapshot) -> tuple[ChildInterface, ...] | Unchecked:
    """All that hang on interfaces of ``here``, the snapshot of this namespace."""
    own = {found.mac for found in here.interfaces}
    parents = {found.name: found for found in here.interfaces if _fostered(found) - own}
    if not parents:
        return ()
    if os.geteuid() != 0:
        count = len(set().union(*map(_fostered, parents.values())) - own)
        what = f"interfaces in other namespaces that hang on {', '.join(parents)}: {count}"
        return Unchecked(what, "only root may enter those")
    found: list[ChildInterface] = []
    for pid in one_process_each():
        with contextlib.suppress(NetError):
            found += _hanging(enter(pid, snapshot), list(parents.values()), pid)
    return tuple(found)


def enter(pid: int, work: Callable[[], T]) -> T:
    """What ``work`` returns in the network namespace of a process.

    Raises NetError if there is no such process, or no right to enter, and whatever ``work`` raises.
    """
    namespace = open_namespace(pid)
    try:
        return run_inside(namespace, work)
    finally:
        os.close(namespace)


def elsewhere(pid: int) -> bool:
    """Whether a process is in another network namespace, as far as this process may see."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino != os.stat(_OWN).st_ino
    except OSError:
        return False


def label(pid: int) -> str:
    """``container 0123456789ab`` where the control group tells, else ``process 17 (redis-server)``."""
    with contextlib.suppress(OSError):
        for word in Path(f"/proc/{pid}/cgroup").read_text().replace(".scope", "").replace("-", "/").split("/"):
            if len(word.strip()) == 64 and all(character in "0123456789abcdef" for character in word.strip()):
                return f"container {word[:12]}"
    with contextlib.suppress(OSError):
        return f"process {pid} ({Path(f'/proc/{pid}/comm').read_text().strip()})"
    return f"process {pid}"


def one_process_each() -> Iterator[int]:
    """A process in each namespace but this one, the oldest."""
    seen = {os.stat(_OWN).st_ino}
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdecimal()):
        with contextlib.suppress(OSError):
            inode = os.stat(f"/proc/{pid}/ns/net").st_ino
            if inode not in seen:
                seen.add(inode)
                yield pid


def _hanging(there: NetSnapshot, parents: list[NetInterface], pid: int) -> Iterator[ChildInterface]:
    for interface in there.interfaces:
        for parent in parents:
            if interface.mac in _fostered(parent):
                addresses = tuple(str(item) for item in there.addresses_of(interface.index))
                yield ChildInterface(label=label(pid), pid=pid, interface=interface, addresses=addresses, parent=parent)


def _fostered(parent: NetInterface) -> set[str]:
    """MACs that an interface receives for others: macvlan children that are up, and virtual functions."""
    functions = {vf.mac for vf in parent.vfs if vf.mac.strip("0:")}
    return {*parent.unicast, *functions} - {parent.mac}
