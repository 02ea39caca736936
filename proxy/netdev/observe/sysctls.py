"""Settings of interfaces that decide which of them answers ARP and which packets it drops, read from /proc/sys."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from proxy.netdev.observe.networkstate import Ipv4Settings

ROOT = Path("/proc/sys/net/ipv4/conf")


def read(names: Iterable[str]) -> dict[str, Ipv4Settings]:
    """The settings of this thread's namespace: those for ``all`` and for new interfaces (``default``), and of each
    interface. Without those that this process could not write, as in most containers: nothing can be planned for them.
    """
    found = {}
    for name in ("all", "default", *names):
        if (settings := _read(ROOT / name)) is not None:
            found[name] = settings
    return found


def write(name: str, key: str, value: int) -> None:
    """Raises OSError."""
    (ROOT / name / key).write_text(str(value))


def _read(folder: Path) -> Ipv4Settings | None:
    if not os.access(folder / "arp_ignore", os.W_OK):
        return None
    try:
        numbers = [int((folder / key).read_text()) for key in Ipv4Settings.__struct_fields__]
    except (OSError, ValueError):  # gone meanwhile
        return None
    return Ipv4Settings(*numbers)
