"""``hostlane version``: what exactly runs here."""

from __future__ import annotations

import os
import platform
import ssl
import subprocess
import sys
from importlib import metadata

import click
import msgspec

from control.api.messages import VersionInfo
from control.base.grid import Facts, show
from control.base.terminal import imported
from control.base.version import VERSION

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
COMMIT_VARIABLE = "HOSTLANE_COMMIT"
"""Says which commit an image was built from."""
LIBRARIES = ("trio", "h11", "msgspec", "cryptography", "httpx", "pyroute2")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def version(as_json: bool) -> None:
    """Show what exactly runs here: commit, Python, OpenSSL, core."""
    found = here()
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    libraries = ", ".join(f"{name} {number}" for name, number in found.libraries.items())
    show([Facts([
        ("hostlane", found.version),
        ("commit", found.commit or "not known"),
        ("core", found.core),
        ("turn", found.turn),
        ("Python", f"{found.python} ({found.executable})"),
        ("OpenSSL", found.openssl),
        ("kernel", found.kernel),
        ("libraries", libraries),
    ])])  # fmt: skip


def here() -> VersionInfo:
    """Of this installation. A proxy that runs may be another one: its status says."""
    core = imported("proxy.core.finder:core")()
    turn = imported("proxy.pump.turn:__file__")
    return VersionInfo(
        version=VERSION,
        commit=commit(),
        core=core,
        turn="compiled" if turn.endswith(".so") else "python",
        python=platform.python_version(),
        executable=sys.executable,
        openssl=ssl.OPENSSL_VERSION,
        kernel=platform.release(),
        libraries={name: metadata.version(name) for name in LIBRARIES},
    )


def commit() -> str | None:
    """Where this was installed from: what pip noted of a repository, what the image was told, or the checkout that it
    runs from, with ``-dirty`` if that has changes. None: nobody knows.
    """
    try:
        noted = metadata.distribution("hostlane").read_text("direct_url.json")
        found = msgspec.json.decode(noted or "{}", type=dict).get("vcs_info", {}).get("commit_id")
    except (msgspec.DecodeError, AttributeError):
        found = None
    found = found or os.environ.get(COMMIT_VARIABLE)
    if found or not os.path.exists(os.path.join(ROOT, ".git")):
        return str(found) if found else None
    try:
        # safe.directory: whose checkout it is does not matter to who only looks.
        git = ["git", "-C", ROOT, "-c", f"safe.directory={ROOT}", "describe", "--always", "--dirty", "--abbrev=40",
               "--exclude=*"]  # fmt: skip
        done = subprocess.run(git, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
