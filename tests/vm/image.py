"""What the machine is made of: an emulator, a kernel, a small Debian, and this project with its dependencies.

Everything comes as packages of one Debian release and as wheels, and is only unpacked, never installed: no script of a
package runs and the machine that builds it stays as it is. Kept in build/vm, made again after `make clean`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "vm"

SUITE = "trixie"
"""The first release whose QEMU has an igb device (8.0); its Python is the one that the wheels are for."""
GUEST_PYTHON = "3.13"
MIRROR = "http://deb.debian.org/debian"

# kmod reads compressed modules only with liblzma, and does not depend on it.
EMULATOR = ("qemu-system-x86", "linux-image-amd64", "kmod", "liblzma5")
GUEST = ("python3", "iproute2", "kmod", "dash", "coreutils", "mount", "nftables", "systemd")
MODULES = ("igb", "igbvf", "e1000e", "8021q", "macvlan", "veth")
PLANTED = ("nf_nat", "xt_conntrack", "br_netfilter", "bridge", "nf_tables", "nft_chain_nat", "nft_masq", "tcp_diag")
"""Modules that a check loads, or a rule or question of it."""
UNUSED = (
    "usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/zoneinfo", "usr/include",
    "usr/lib/python3.13/test", "var/lib/dpkg",
)  # fmt: skip

COMMAND = """\
#!/usr/bin/python3
import sys
sys.path.insert(0, "/opt/hostlane")
from control.cli.main import main
main()
"""

BUILD_SECONDS = 600
"""For each step; fetching and unpacking takes one minute where the network is good."""


class MissingError(Exception):
    """The machine cannot be built or booted here; the text says what is missing."""


def emulator() -> Path:
    """The folder of QEMU and the kernel, to chroot into."""
    return _unpacked("emulator", EMULATOR)


def kernel(root: Path) -> str:
    """The kernel's version."""
    found = sorted((root / "usr/lib/modules").iterdir())
    if not found:
        raise MissingError(f"{root} has no kernel; remove it (make clean) and try again")
    return found[0].name


def initramfs(root: Path, target: Path) -> None:
    """Write the machine's file system: several archives behind each other, as the kernel allows."""
    guest = _unpacked("guest", GUEST)
    modules = WORK / "modules"
    _copy_modules(root, modules)
    own = WORK / "own"
    _install_project(own)
    _run(["chroot", guest, "python3", "-m", "compileall", "-q", "/usr/lib/python3.13", "-x", "/test/"], may_fail=True)
    with target.open("wb") as out:
        for tree in (guest, modules, _dependencies(), own):
            names = "\0".join(_names(tree))
            subprocess.run(
                ["cpio", "--null", "--create", "--format=newc", "--quiet", "--owner=0:0"],
                cwd=tree, input=names.encode(), stdout=out, check=True,
            )  # fmt: skip


def _unpacked(name: str, packages: Sequence[str]) -> Path:
    root = WORK / name
    if root.exists():
        return root
    part = WORK / f"{name}.part"
    shutil.rmtree(part, ignore_errors=True)
    WORK.mkdir(parents=True, exist_ok=True)
    lean = ["--variant=extract", '--aptopt=APT::Install-Recommends "false"', "--quiet"]
    mirror = os.environ.get("MIRROR", MIRROR)
    _run(["mmdebstrap", *lean, f"--include={','.join(packages)}", SUITE, part, mirror])
    for folder in ("bin", "sbin", "lib", "lib64"):
        if not (part / folder).exists():
            (part / folder).symlink_to(f"usr/{folder}")
    for folder in ("proc", "sys", "run"):
        (part / folder).mkdir(exist_ok=True)
    part.rename(root)
    return root


def _copy_modules(root: Path, into: Path) -> None:
    """Those that are needed, with what they need."""
    version = kernel(root)
    _run(["chroot", root, "depmod", version])
    said = _run(["chroot", root, "modprobe", "--set-version", version, "--all", "--show-depends", *MODULES, *PLANTED])
    shutil.rmtree(into, ignore_errors=True)
    for line in said.splitlines():
        if line.startswith("insmod "):
            name = line.split()[1].lstrip("/").removeprefix("usr/")
            copied = into / "usr" / name
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / "usr" / name, copied)
    folder = f"usr/lib/modules/{version}"
    for path in (root / folder).glob("modules.*"):
        shutil.copy(path, into / folder / path.name)


def _dependencies() -> Path:
    """Wheels for the machine's Python, not for the one that builds it; again when pyproject.toml changes."""
    tree, stamp = WORK / "dependencies", WORK / "dependencies.stamp"
    project = ROOT / "pyproject.toml"
    if stamp.exists() and stamp.stat().st_mtime > project.stat().st_mtime:
        return tree
    shutil.rmtree(tree, ignore_errors=True)
    platforms = [f"--platform={name}_x86_64" for name in ("manylinux2014", "manylinux_2_28")]
    wanted = tomllib.loads(project.read_text())["project"]["dependencies"]
    _pip(tree, ["--only-binary=:all:", f"--python-version={GUEST_PYTHON}", *platforms, *wanted])
    _compile(tree)
    stamp.touch()
    return tree


def _install_project(tree: Path) -> None:
    """The project itself, the tests that run inside, the command and the first process."""
    # What setuptools left there earlier would be installed too, files that are gone since included.
    for old in (tree, ROOT / "build" / "lib"):
        shutil.rmtree(old, ignore_errors=True)
    _pip(tree, ["--no-deps", str(ROOT)])
    there = tree / "opt/hostlane"
    for name in ("vm", "netdev", "tools", "system"):
        shutil.copytree(ROOT / "tests" / name, there / "tests" / name, ignore=shutil.ignore_patterns("__pycache__"))
    _compile(tree)
    command = tree / "usr/bin/hostlane"
    command.parent.mkdir(parents=True)
    command.write_text(COMMAND)
    command.chmod(0o755)
    shutil.copy(Path(__file__).with_name("init"), tree / "init")
    (tree / "init").chmod(0o755)
    _install_units(tree)


def _install_units(tree: Path) -> None:
    """The units, what documents say of them, and the one that runs the checks where the first process is systemd."""
    for name in ("docs", "configs"):
        shutil.copytree(ROOT / name, tree / "opt/hostlane" / name)
    units = tree / "etc/systemd/system"
    units.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("hostlane-vm.service"), units)
    shutil.rmtree(tree / "opt/hostlane/bin", ignore_errors=True)  # pip's, for the interpreter that builds this
    (tree / "opt/hostlane/bin").mkdir()
    (tree / "opt/hostlane/bin/hostlane").symlink_to("/usr/bin/hostlane")
    # Without a number the machine is one that boots for the first time, and systemd sets it up at length.
    (tree / "etc/machine-id").write_text("68" * 16 + "\n")


def _pip(tree: Path, words: Sequence[str]) -> None:
    target = f"--target={tree / 'opt/hostlane'}"
    _run([sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", target, *words])


def _compile(tree: Path) -> None:
    """An emulated machine takes minutes to compile what is imported."""
    extended = WORK / "guest" / "opt"
    (tree / "opt").rename(extended)
    try:
        _run(["chroot", extended.parent, "python3", "-m", "compileall", "-q", "/opt"], may_fail=True)
    finally:
        extended.rename(tree / "opt")


def _names(tree: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(tree):
        here = Path(folder).relative_to(tree)
        folders[:] = [name for name in folders if str(here / name) not in UNUSED]
        yield str(here)
        yield from (str(here / name) for name in files)
        yield from (str(here / name) for name in folders if (tree / here / name).is_symlink())


def _run(argv: Sequence[str | Path], *, may_fail: bool = False) -> str:
    """Raises MissingError with what the command said."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS)
    except FileNotFoundError:
        raise MissingError(f"{argv[0]} is not installed (Debian: apt-get install {argv[0]})") from None
    except subprocess.TimeoutExpired:
        raise MissingError(f"{argv[0]} took over {BUILD_SECONDS}s; is the network there?") from None
    if done.returncode and not may_fail:
        raise MissingError(f"{' '.join(map(str, argv))}: {' '.join(done.stderr.split())[-600:]}")
    return done.stdout
