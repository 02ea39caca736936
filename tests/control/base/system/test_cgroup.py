"""The kernel's own cgroups where this machine has version 1 of them; version 2 is in tests/vm, and here as files."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.base.system.cgroup import MemoryLimit, cpu_quota, memory_left, memory_limit, own_memory

MIB = 1 << 20
pytestmark = pytest.mark.failure("33")


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup of version 1 below this process's, gone after the test."""
    try:
        folder = Path(f"/sys/fs/cgroup/memory/hl-test-{os.getpid()}")
        folder.mkdir()
        (folder / "memory.limit_in_bytes").read_text()
    except OSError:
        pytest.skip("no version 1 of the memory controller that this process may use")
    yield folder
    for each in sorted(folder.rglob("*/"), reverse=True):
        if each.is_dir():
            each.rmdir()
    folder.rmdir()


def limit_in(folder: Path) -> str:
    """What a process finds that lives there."""
    code = "from control.base.system.cgroup import memory_limit as m; f = m(); print(f and (f.bytes, f.file))"
    argv = ["sh", "-c", f'echo $$ >"{folder}/cgroup.procs" && exec "$@"', "sh", sys.executable, "-c", code]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def test_none(cgroup: Path) -> None:
    (cgroup / "nested").mkdir()
    assert limit_in(cgroup) == limit_in(cgroup / "nested")
    assert "memory/hl-test" not in limit_in(cgroup)


@pytest.mark.parametrize(("outer", "inner", "expected"), [(96, 64, 64), (64, 96, 64), (64, None, 64), (None, 64, 64)])
def test_the_smallest_on_the_way_up(cgroup: Path, outer: int | None, inner: int | None, expected: int) -> None:
    nested = cgroup / "a b" / "nested"
    nested.mkdir(parents=True)
    for folder, limit in ((cgroup, outer), (nested, inner)):
        if limit is not None:
            (folder / "memory.limit_in_bytes").write_text(f"{limit}M")
    assert limit_in(nested) == str((expected * MIB, f"{nested}/memory.limit_in_bytes"))


def test_of_another_process(cgroup: Path) -> None:
    (cgroup / "memory.limit_in_bytes").write_text("64M")
    argv = ["sh", "-c", f"echo $$ > {cgroup}/cgroup.procs && echo && exec sleep 60"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert memory_limit(process.pid) == MemoryLimit(64 * MIB, f"{cgroup}/memory.limit_in_bytes")
        process.kill()


def test_what_is_left(cgroup: Path, tmp_path: Path) -> None:
    """Pages of a file do not count: the kernel gives them up for what a process needs."""
    file = cgroup / "memory.limit_in_bytes"
    file.write_text("64M")
    limit = MemoryLimit(64 * MIB, str(file))
    assert memory_left(limit) == 64 * MIB
    write = f"with open('{tmp_path}/file', 'wb') as file: file.write(bytes(8 << 20))"
    code = f"{write}\nheld = b'x' * (20 << 20)\nprint(flush=True)\ninput()"
    argv = ["sh", "-c", f'echo $$ >"{cgroup}/cgroup.procs" && exec "$@"', "sh", sys.executable, "-I", "-c", code]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        left = memory_left(limit)
        assert left is not None
        assert 64 - 20 - 12 < left / MIB < 64 - 20
        process.communicate(b"\n")


def test_what_is_left_in_version_2(tmp_path: Path) -> None:
    limit = MemoryLimit(64 * MIB, str(tmp_path / "memory.high"))
    assert memory_left(limit) is None, "it cannot be told"
    (tmp_path / "memory.current").write_text(f"{50 * MIB}\n")
    assert memory_left(limit) == 14 * MIB
    (tmp_path / "memory.stat").write_text(f"anon 1\ninactive_file {4 * MIB}\nactive_file {2 * MIB}\nfile 7\n")
    assert memory_left(limit) == 20 * MIB


def test_what_this_process_has_for_itself() -> None:
    before = own_memory()
    # Not of the allocator, which may have that much at hand.
    with mmap.mmap(-1, 32 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:
        held.write(b"x" * len(held))
        assert own_memory() - before > 30 * MIB


class Tree:
    """Files as version 2 has them: /proc of a process, and the mount."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.top = folder / "proc", folder / "sys fs" / "cgroup"
        (self.proc / "self").mkdir(parents=True)

    def at(self, path: str, root: str = "/", kind: str = "cgroup2") -> None:
        (self.proc / "self" / "cgroup").write_text(f"0::{path}\n")
        place = str(self.top).replace(" ", "\\040")
        line = f"30 23 0:26 {root} {place} rw,nosuid shared:4 - {kind} cgroup2 rw,nsdelegate\n"
        (self.proc / "self" / "mountinfo").write_text(f"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n{line}")

    def set(self, path: str, **limits: str) -> None:
        folder = self.top / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in limits.items():
            (folder / f"memory.{name}").write_text(value + "\n")

    def found(self) -> tuple[int, str] | None:
        limit = memory_limit(proc=self.proc)
        return None if limit is None else (limit.bytes, str(Path(limit.file).relative_to(self.top)))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_version_2(tree: Tree) -> None:
    tree.at("/system.slice/hostlane.service")
    tree.set("system.slice", max="max", high="max")
    tree.set("system.slice/hostlane.service", max="max", high="max")
    assert tree.found() is None
    tree.set("system.slice/hostlane.service", max=f"{96 * MIB}")
    assert tree.found() == (96 * MIB, "system.slice/hostlane.service/memory.max")
    tree.set("system.slice", max=f"{64 * MIB}")
    assert tree.found() == (64 * MIB, "system.slice/memory.max")
    tree.set("system.slice/hostlane.service", high=f"{32 * MIB}")
    assert tree.found() == (32 * MIB, "system.slice/hostlane.service/memory.high")


@pytest.mark.parametrize(
    ("path", "root"),
    [("/", "/"), ("/docker/0123", "/docker/0123"), ("/../../other", "/"), ("/docker/01234", "/docker/0123")],
    ids=["in a namespace", "in a container without one", "outside the namespace", "beside what is mounted"],
)
def test_in_a_container(tree: Tree, path: str, root: str) -> None:
    tree.at(path, root)
    tree.set("", max=f"{64 * MIB}")
    assert tree.found() == (64 * MIB, "memory.max")


def test_below_the_root_of_a_container(tree: Tree) -> None:
    tree.at("/docker/0123/init", "/docker/0123")
    tree.set("", max=f"{64 * MIB}")
    tree.set("init", max=f"{32 * MIB}")
    assert tree.found() == (32 * MIB, "init/memory.max")


@pytest.mark.parametrize("value", ["9223372036854771712", "max", "", "nonsense"])
def test_what_is_no_limit(tree: Tree, value: str) -> None:
    tree.at("/")
    tree.set("", max=value)
    assert tree.found() is None


def test_without_cgroups(tmp_path: Path) -> None:
    assert memory_limit(proc=tmp_path) is None


def quota_at(tree: Tree, path: str, words: str) -> None:
    folder = tree.top / path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.max").write_text(words + "\n")


def test_a_quota_of_cpu_time_in_version_2(tree: Tree) -> None:
    """Of the cgroup itself, or of one above it."""
    tree.at("/system.slice/hostlane.service")
    assert cpu_quota(proc=tree.proc) is None
    quota_at(tree, "system.slice/hostlane.service", "max 100000")
    quota_at(tree, "system.slice", "max 100000")
    assert cpu_quota(proc=tree.proc) is None
    quota_at(tree, "system.slice", "150000 100000")
    assert cpu_quota(proc=tree.proc) == str(tree.top / "system.slice/cpu.max")
    quota_at(tree, "system.slice/hostlane.service", "20000 100000")
    assert cpu_quota(proc=tree.proc) == str(tree.top / "system.slice/hostlane.service/cpu.max")
    quota_at(tree, "system.slice/hostlane.service", "nonsense")
    quota_at(tree, "system.slice", "")
    assert cpu_quota(proc=tree.proc) is None


def test_a_quota_of_cpu_time_in_a_container(tree: Tree) -> None:
    tree.at("/")
    quota_at(tree, "", "50000 100000")
    assert cpu_quota(proc=tree.proc) == str(tree.top / "cpu.max")


@pytest.fixture
def cpu_cgroup() -> Iterator[Path]:
    """A cgroup of version 1 of the cpu controller, with one nested in it; gone after the test."""
    folder = Path(f"/sys/fs/cgroup/cpu/hl-test-{os.getpid()}")
    try:
        (folder / "nested").mkdir(parents=True)
        (folder / "cpu.cfs_quota_us").read_text()
    except OSError:
        pytest.skip("no version 1 of the cpu controller that this process may use")
    yield folder
    (folder / "nested").rmdir()
    folder.rmdir()


def test_a_quota_of_cpu_time_in_version_1(cpu_cgroup: Path) -> None:
    """The kernel's own files, of a process that lives there; the quota of the outer one holds too."""
    argv = ["sh", "-c", f"echo $$ > {cpu_cgroup}/nested/cgroup.procs && echo && exec sleep 60"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert cpu_quota(process.pid) is None
        (cpu_cgroup / "cpu.cfs_quota_us").write_text("50000")
        assert cpu_quota(process.pid) == f"{cpu_cgroup}/cpu.cfs_quota_us"
        (cpu_cgroup / "nested/cpu.cfs_quota_us").write_text("20000")
        assert cpu_quota(process.pid) == f"{cpu_cgroup}/nested/cpu.cfs_quota_us"
        process.kill()
