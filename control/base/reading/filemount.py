"""Files that are a mount of their own: ``-v ./hostlane.yaml:/etc/hostlane/hostlane.yaml`` of a container engine.

Such a mount shows one file for good, not a name. Most editors, and everything that replaces a file in one step, put
another file in its place, which the container never sees.
"""

from __future__ import annotations

import os
import re

_DELETED = "//deleted"  # fs/d_path.c: what seq_dentry adds to the name of a file that has none any more


def mount_source(path: str) -> str | None:
    """The file behind `path`, by its name on its own file system as the kernel knows it now, if `path` is a mount of a
    single file; None if it is none, or this cannot be told. A file that has been replaced has another name than
    before (a backup's), or none (`is_gone`). Blocks on the file system.
    """
    try:
        real = os.path.realpath(path)
        if not os.path.isfile(real):
            return None
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
            # proc_pid_mountinfo(5): number, parent, device, root, mount point; what is mounted last is what one sees.
            mounts = [line.split(" ", 5)[3:5] for line in lines]
    except OSError:
        return None
    return next((_plain(root) for root, point in reversed(mounts) if _plain(point) == real), None)


def is_gone(source: str) -> bool:
    """Whether the file has no name any more (something else may have it)."""
    return source.endswith(_DELETED)


def _plain(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), field)
