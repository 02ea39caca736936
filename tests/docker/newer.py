"""A newer engine than this machine's own: Debian's packages of another suite, unpacked beside it and not installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUITE = "trixie"
"""Docker 26.1."""
PACKAGES = ("docker.io", "docker-cli", "containerd", "docker-compose")
"""Static, or content with an older libc; not so its runc: this machine's own is used."""
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
SOURCES = Path("/etc/apt/sources.list.d/debian.sources")


def unpacked() -> Path:
    """The folder that has them, below build/; they are fetched once. AssertionError if they cannot be."""
    folder = ROOT / "build" / f"docker-{SUITE}"
    if not folder.is_dir():
        work = folder.with_name(f"{folder.name}-{os.getpid()}")
        try:
            _fetch(work)
            (work / "engine").rename(folder)
        finally:
            shutil.rmtree(work)
    return folder


def path_of(folder: Path) -> str:
    """PATH with what is in it first."""
    return f"{folder}/usr/sbin:{folder}/usr/bin:{os.environ['PATH']}"


def _fetch(work: Path) -> None:
    for made in ("lists/partial", "cache/archives/partial", "packages", "engine"):
        (work / made).mkdir(parents=True)
    mirror = next(line.split()[1] for line in SOURCES.read_text().splitlines() if line.startswith("URIs:"))
    (work / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror} {SUITE} main\n")
    settings = {
        "Dir::Etc::SourceList": work / "sources.list",
        "Dir::Etc::SourceParts": "-",
        "Dir::State::Lists": work / "lists",
        "Dir::Cache": work / "cache",
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in settings.items())]
    _run([*apt, "update"], work)
    _run([*apt, "download", *(f"{package}/{SUITE}" for package in PACKAGES)], work / "packages")
    for package in (work / "packages").iterdir():
        _run(["dpkg-deb", "-x", str(package), str(work / "engine")], work)
    (work / "engine/usr/sbin/runc").unlink(missing_ok=True)


def _run(argv: list[str], folder: Path) -> None:
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
