"""How much memory the cgroup of a process may take, and whether it has a quota of CPU time, in either version of
cgroups.

A limit holds for a cgroup and all below it, so the smallest one on the way up counts. In a container the way ends at
what is mounted there; version 1 tells of the limits above that too. See cgroups(7), and in the kernel's documentation
admin-guide/cgroup-v2, admin-guide/cgroup-v1/memory and scheduler/sched-bwc.
"""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

_NONE = 1 << 60
"""Bytes. Version 1 says "no limit" as the largest multiple of a page in 63 bits; nobody has this much."""
_V2 = ("memory.max", "memory.high")
"""Beyond the first a process is killed, beyond the second it is slowed down until it hardly moves."""


_USED = ("memory.current", "memory.usage_in_bytes")


class MemoryLimit(Struct, frozen=True):
    """Bytes that the processes in a cgroup may take together, and the file that says so."""

    bytes: int
    file: str


def memory_limit(pid: int | str = "self", proc: Path = Path("/proc")) -> MemoryLimit | None:
    """The limit that a process has; None if it has none, or none that can be seen from here. Blocks, for a file or two
    of the kernel's at each level. Raises nothing.

    Args:
        proc: where /proc is mounted. Mounts are those of this process, which also sees paths of cgroups as they are in
            its own namespace.
    """
    mounts = list(_mounts(_text(proc / "self" / "mountinfo"), "memory"))
    found: list[MemoryLimit] = []
    for version, path in _cgroups(pid, proc, "memory"):
        found += _limits_v2(mounts, path) if version == 2 else _limits_v1(mounts, path)
    return min(found, key=lambda limit: limit.bytes, default=None)


def memory_left(limit: MemoryLimit) -> int | None:
    """Bytes that the processes in the limit's cgroup may take beside those that they take now; what the kernel keeps of
    files, and would give up for them, counts as left. None: it cannot be told. Blocks and raises as `memory_limit`.
    """
    folder = Path(limit.file).parent
    used = next((word for name in _USED if (word := _text(folder / name).strip()).isdecimal()), None)
    if used is None:
        return None
    # Version 1 has a line of this name for the cgroup alone, and one for all below it too.
    files = re.findall(r"^(total_)?(?:in)?active_file (\d+)$", _text(folder / "memory.stat"), re.MULTILINE)
    everything = [int(size) for total, size in files if total] or [int(size) for _, size in files]
    return limit.bytes - int(used) + sum(everything)


def own_memory() -> int:
    """Bytes that this process has for itself alone, without what is mapped from files; 0: it cannot be told."""
    words = _text(Path("/proc/self/statm")).split()
    return (int(words[1]) - int(words[2])) * resource.getpagesize() if len(words) > 2 else 0


def cpu_quota(pid: int | str = "self", proc: Path = Path("/proc")) -> str | None:
    """The file that gives the process a quota of CPU time, of its cgroup or one above it that is seen from here; None:
    there is none. Blocks, and takes arguments, as `memory_limit`. Raises nothing.
    """
    mounts = list(_mounts(_text(proc / "self" / "mountinfo"), "cpu"))
    for version, path in _cgroups(pid, proc, "cpu"):
        name = "cpu.max" if version == 2 else "cpu.cfs_quota_us"
        for folder in _upwards(mounts, "cgroup2" if version == 2 else "cgroup", path):
            words = _text(folder / name).split()
            if words and words[0].isdecimal():  # not "max", not -1
                return str(folder / name)
    return None


def _cgroups(pid: int | str, proc: Path, controller: str) -> Iterator[tuple[int, str]]:
    """Version and path of the cgroups of a process in which a controller may be at work (cgroups(7))."""
    for line in _text(proc / str(pid) / "cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":
            yield 2, path
        elif controller in controllers.split(","):
            yield 1, path


def _upwards(mounts: list[tuple[str, str, Path]], kind: str, path: str) -> Iterator[Path]:
    """The folder of a cgroup, and those above it that are seen from here."""
    for folder, top in _folders(mounts, kind, path):
        yield folder
        while folder != top:
            folder = folder.parent
            yield folder


def _limits_v2(mounts: list[tuple[str, str, Path]], path: str) -> Iterator[MemoryLimit]:
    for folder in _upwards(mounts, "cgroup2", path):
        for name in _V2:
            yield from _read(folder / name)


def _limits_v1(mounts: list[tuple[str, str, Path]], path: str) -> Iterator[MemoryLimit]:
    for folder, _ in _folders(mounts, "cgroup", path):
        # Of this cgroup and all above it, seen from here or not; where they do not form a hierarchy, of this one.
        found = re.search(r"^hierarchical_memory_limit (\d+)$", _text(folder / "memory.stat"), re.MULTILINE)
        if found is not None and int(found[1]) < _NONE:
            yield MemoryLimit(int(found[1]), str(folder / "memory.limit_in_bytes"))


def _folders(mounts: list[tuple[str, str, Path]], kind: str, path: str) -> Iterator[tuple[Path, Path]]:
    """The folder of a cgroup, and the mount that it is in, which may show only a part of all cgroups (`root`)."""
    for found, root, top in mounts:
        if found == kind:
            inside = (path + "/").startswith(root.rstrip("/") + "/") and ".." not in path
            # What is not in this part (seen from a namespace that was entered later: /../..) has the part's limits.
            yield (top / path.removeprefix(root.rstrip("/")).strip("/") if inside else top), top


def _mounts(text: str, controller: str) -> Iterator[tuple[str, str, Path]]:
    """Kind, root and place of each mount of cgroups in which a controller may be at work (proc(5), mountinfo)."""
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, kinds = left.split(" "), right.split(" ")
        if len(fields) < 5 or len(kinds) < 3 or kinds[0] not in ("cgroup", "cgroup2"):
            continue
        if kinds[0] == "cgroup2" or controller in kinds[2].split(","):
            yield kinds[0], _unescaped(fields[3]), Path(_unescaped(fields[4]))


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), field)


def _read(file: Path) -> Iterator[MemoryLimit]:
    word = _text(file).strip()
    if word.isdecimal() and int(word) < _NONE:
        yield MemoryLimit(int(word), str(file))


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, ValueError):
        return ""
