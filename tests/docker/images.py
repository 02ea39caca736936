"""The image, built from the Dockerfile as a user does, by an engine in this machine's own network: it is where packages
come from. No image is pulled: the public Python image is called by a name that a base made of Debian has here.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.docker.engines import EngineHost
from tests.docker.programs import CACHE, CERTIFICATES, ROOT, base, engine, run

BASE = "python:3.11-slim"
"""What the Dockerfile begins with, if it is not told otherwise."""
IMAGE = "hostlane"
TRUST = [f"ENV {name}={CERTIFICATES}" for name in ("PIP_CERT", "SSL_CERT_FILE")]


@contextmanager
def builder(programs: Path | None) -> Iterator[EngineHost]:
    """An engine that has the base and can reach the package index; it gets no address and makes no rule."""
    folder = Path(tempfile.mkdtemp(prefix="hl-build-"))
    try:
        made = EngineHost(None, folder / "e", programs=programs)
        try:
            import_base(made)
            yield made
        finally:
            made.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def import_base(host: EngineHost) -> None:
    """Give the engine the base image."""
    host.docker("import", *(word for each in TRUST for word in ("--change", each)), str(base()), BASE)


def import_base_behind(host: EngineHost, proxy: str) -> None:
    """Give the base image to an engine whose builds reach the package indexes by an HTTP proxy (`outside.way_out`)."""
    import_base(host)
    (host.files / "Dockerfile").write_text(
        f"FROM {BASE}\n"
        f"RUN printf '[global]\\nproxy = {proxy}\\n' > /etc/pip.conf"
        f" && echo 'Acquire::http::Proxy \"{proxy}\";' > /etc/apt/apt.conf.d/proxy\n"
    )
    host.docker("build", f"--tag={BASE}", str(host.files))


def build(host: EngineHost, *options: str, context: Path = ROOT, tag: str = IMAGE) -> None:
    """`docker build`, with what the engine's own builder does without being told."""
    host.docker("build", "--network=host", f"--tag={tag}", *options, str(context), limit=900)


def built() -> Path:
    """A tar of the image of this checkout as it is now. Built by the newer engine unless it is there."""
    file = CACHE / "image.tar"
    mark = CACHE / "image.of"
    of = _sources()
    if not file.exists() or not mark.exists() or mark.read_text() != of:
        mark.unlink(missing_ok=True)
        with builder(engine()) as host:
            build(host)
            host.docker("save", f"--output={file}", IMAGE)
        mark.write_text(of)
    return file


def _sources() -> str:
    """Stands for everything that a build reads."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    read = ["Dockerfile", ".dockerignore", *(line[1:] for line in lines if line.startswith("!"))]
    argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *read]
    digest = hashlib.sha256()
    for name in sorted(set(run(argv, cwd=ROOT).split("\0")) - {""}):
        content = (ROOT / name).read_bytes() if (ROOT / name).exists() else b""
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()
