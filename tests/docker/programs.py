"""What the image and the Compose files are tried with beyond what is installed: a newer engine with Compose, and a base
image made of Debian. Fetched once, by apt, from Debian's mirror ($MIRROR: another one); kept in build/docker.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "build" / "docker"
MIRROR = os.environ.get("MIRROR", "http://deb.debian.org/debian")
SUITE, OLDER = "trixie", "bookworm"
"""Debian's suites. What of the engine wants a C library of its own time is of the older one."""
PACKAGES = {
    SUITE: ("docker.io", "docker-cli", "docker-buildx", "docker-compose", "containerd"),
    OLDER: ("runc", "tini"),
}
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
BASE = "python3,python3-venv,ca-certificates"
"""What stands for the public Python image: Python, whose venv has a pip."""
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
HOOKS = (
    # So that pip in a build trusts whom pip on this machine trusts.
    f'cp -L {CERTIFICATES} "$1{CERTIFICATES}"',
    # The public image has no module compiled, and no documentation.
    'find "$1/usr/lib/python3" "$1"/usr/lib/python3.* -name __pycache__ -prune -exec rm -rf {} +',
    'rm -rf "$1"/usr/share/doc "$1"/usr/share/man "$1"/usr/share/locale "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*',
)


def engine() -> Path:
    """The folder that holds /usr of the newer engine: Docker 26.1, Compose 2.26. Fetches it if it is not there."""
    folder = CACHE / SUITE
    if (folder / "usr/sbin/dockerd").exists():
        return folder
    work = CACHE / "work"
    shutil.rmtree(work, ignore_errors=True)
    for made in ("lists/partial", "cache/archives/partial", "packages", "tree"):
        (work / made).mkdir(parents=True)
    lines = [f"deb [signed-by={KEYRING}] {MIRROR} {suite} main\n" for suite in PACKAGES]
    (work / "sources.list").write_text("".join(lines))
    options = [
        f"Dir::Etc::SourceList={work}/sources.list", "Dir::Etc::SourceParts=-", f"Dir::State::Lists={work}/lists",
        f"Dir::Cache={work}/cache", "APT::Sandbox::User=root",
    ]  # fmt: skip
    apt = ["apt-get", "-qq", *(word for option in options for word in ("-o", option))]
    run([*apt, "update"])
    wanted = [f"{name}/{suite}" for suite, names in PACKAGES.items() for name in names]
    run([*apt, "download", *wanted], cwd=work / "packages")
    for package in (work / "packages").iterdir():
        run(["dpkg-deb", "-x", str(package), str(work / "tree")])
    (work / "tree/usr/bin/docker-init").unlink(missing_ok=True)
    (work / "tree/usr/bin/docker-init").symlink_to("tini-static")
    (work / "tree").rename(folder)
    shutil.rmtree(work)
    return folder


def base() -> Path:
    """A tar of a Debian with a Python and little else. Makes it if it is not there."""
    file = CACHE / f"base-{OLDER}.tar"
    if not file.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        part = CACHE / "part.tar"
        hooks = [f"--customize-hook={hook}" for hook in HOOKS]
        run(["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={BASE}", *hooks, OLDER,
             str(part), MIRROR])  # fmt: skip
        part.rename(file)
    return file


def run(argv: Sequence[str], cwd: Path | None = None) -> str:
    """What a command prints; AssertionError with what it complains of if it fails."""
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, f"{' '.join(argv[:3])} …: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout
