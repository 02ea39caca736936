"""Namespaces that door or attach service keep by what they have mounted: a container's network namespace lives on, with
its interface, MAC and address, as long as its file is mounted anywhere.

The engine's socket may lie above its directory of namespaces (/run above /run/docker/netns). Mounted into a container
as Docker does by default (`rprivate`), that brings copies of all that there are, which stay when the engine takes the
originals away. As a slave (`ro,rslave`) they go with them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import structlog

from proxy.config.schema import DoorConfig

log = structlog.get_logger()

MOUNTS = "/proc/self/mountinfo"


def warn(door: DoorConfig) -> None:
    """Say in one line if there are such copies. Blocks on /proc; raises nothing."""
    try:
        with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
            found = list(copies(file.read(), os.path.dirname(door.engine), door.namespaces))
    except OSError:
        return
    if found:
        log.warning(
            "namespaces stay when their containers have ended", directory=os.path.dirname(door.engine),
            mounts=len(found), first=found[0], mend="mount that directory ro,rslave, and start again",
        )  # fmt: skip


def copies(mountinfo: str, above: str, own: str) -> Iterator[str]:
    """The mount points of namespaces that nobody else takes away: they lie in the directory `above`, not in `own`, and
    follow no other mount. `mountinfo`: as proc_pid_mountinfo(5) has it.
    """
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        if right.partition(" ")[0] != "nsfs":
            continue
        fields = left.split(" ")
        place, propagation = fields[4], fields[6:]
        if _inside(place, above) and not _inside(place, own) and not propagation:
            yield place


def _inside(path: str, directory: str) -> bool:
    return path.startswith(f"{directory.rstrip('/')}/")
