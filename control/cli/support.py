"""``hostlane support``: what a bug report needs, in one file, without secrets.

Other commands of this command line gather it, each in a process of its own: what hangs or fails is noted, and costs the
rest nothing.
"""

from __future__ import annotations

import io
import os
import platform
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from typing import NamedTuple

import click

from control.api import admin
from control.base.errors import ConfigError
from control.base.options import A_FILE
from control.base.reading.addresses import DEFAULT_CONFIG
from control.base.terminal import fail
from control.base.wholefile import write_file

PATIENCE = 60.0
"""Seconds for each part."""
LINES = 2000
"""Of the journal."""
MOST = 8 << 20
"""Bytes of one part."""
MAIN = [sys.executable, "-c", "from control.cli.main import main; main()"]
ASKED = {
    "status.json": ["status", "--json"],
    "health.json": ["health", "--json"],
    "hosts.json": ["hosts", "--json"],
    "services.json": ["services", "--json"],
    "links.json": ["links", "--json"],
    "streams.json": ["streams", "--by", "service", "--by", "peer", "--by", "state", "--json"],
}
"""What a proxy is asked."""
READ = ("/etc/os-release", "/proc/meminfo", "/proc/loadavg", "/proc/self/cgroup", "/proc/sys/net/core/somaxconn",
        "/proc/sys/net/ipv4/tcp_retries2", "/proc/net/sockstat", "/proc/net/netstat")  # fmt: skip
_SECRETS = [
    re.compile(rb"hostlane1\.[A-Za-z0-9_-]+"),
    re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(rb"(?i)(?<=password=)[^\s&\"']+|(?<=bearer )[^\s\"']+"),
]
REMOVED = b"(removed)"


class SupportPart(NamedTuple):
    """A file of the archive."""

    name: str
    content: bytes


@click.command()
@click.option("--out", metavar="FILE", type=A_FILE, help="A new file; default: a name with host and time.")
@click.option("--config", metavar="FILE", type=A_FILE, help="The configuration that the proxy runs with.")
@click.option("--socket", metavar="PATH", type=A_FILE, help="The proxy's admin socket.")
@click.option("--unit", default="hostlane", show_default=True, metavar="NAME", help="Whose journal is taken.")
def support(out: str | None, config: str | None, socket: str | None, unit: str) -> None:
    """Pack what a bug report needs.

    Versions, what the proxy tells, what `check` finds, the effective configuration and the journal; no keys, tokens or
    values of environment variables. Names and addresses of hosts and services are in it: look before you send it. What
    cannot be had is noted in it. Exit 1 if the file cannot be written.
    """
    try:
        at = admin.socket_of(config, socket)
    except admin.BadConfig as error:
        fail(error, 2)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    folder = f"hostlane-support-{platform.node() or 'host'}-{stamp}"
    file = out or f"{folder}.tar.gz"
    parts = list(_parts(at, config or DEFAULT_CONFIG, unit))
    try:
        write_file(os.path.abspath(file), _packed(folder, parts), 0o600, replace=False)
    except OSError as error:
        fail(f"{file}: {(error.strerror or 'cannot be written').lower()}", 1)
    for part in parts:
        click.echo(f"  {part.name}", err=True)
    click.echo(f"written to {file}")


def without_secrets(content: bytes) -> bytes:
    """The content with tokens, private keys and passwords taken out, wherever they have got to."""
    for secret in _SECRETS:
        content = secret.sub(REMOVED, content)
    return content


def _parts(at: str, file: str, unit: str) -> Iterator[SupportPart]:
    yield from _of("version.json", [*MAIN, "version", "--json"])
    for name, words in ASKED.items():
        yield from _of(name, [*MAIN, *words, "--socket", at])
    has_file = os.path.exists(file)
    yield from _of("check.json", [*MAIN, "check", "--json", *(["--config", file] if has_file else [])])
    yield SupportPart("configuration.yaml", _configuration(file))
    yield from _of("journal.txt", ["journalctl", "--no-pager", "-o", "short-iso", "-n", str(LINES), "-u", unit])
    yield from _of("links-of-the-kernel.txt", ["ip", "-details", "link"])
    yield from _of("sockets.txt", ["ss", "-s"])
    said = [b"# %s\n%s" % (path.encode(), _read(path)) for path in READ]
    yield SupportPart("system.txt", f"{' '.join(platform.uname())}\n".encode() + b"\n".join(said))


def _of(name: str, command: list[str]) -> Iterator[SupportPart]:
    """What a command says; and, as a second file, what is wrong with that."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        why = f"no answer for {PATIENCE:.0f} s" if isinstance(error, subprocess.TimeoutExpired) else str(error.strerror)
        yield SupportPart(f"{name}.failed", f"{command[0]}: {why.lower()}\n".encode())
        return
    if done.stdout:
        yield SupportPart(name, done.stdout)
    if done.stderr or done.returncode:
        yield SupportPart(f"{name}.stderr", done.stderr + f"exit code {done.returncode}\n".encode())


def _configuration(file: str) -> bytes:
    """The effective one; of what comes from the environment, only the name."""
    import msgspec

    from control.base.reading.effective import as_yaml, values
    from control.base.reading.files import text_of
    from control.cli.filekinds import kind_of

    try:
        text = text_of(file)
        config, document = kind_of(text, file).examined(text, file)
    except ConfigError as error:
        return ("\n".join(error.problems) + "\n").encode()
    found = [
        msgspec.structs.replace(each, value="(removed)") if "${" in each.source else each
        for each in values(config, document, os.path.basename(file))
    ]
    return (as_yaml(found) + "\n").encode()


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read(MOST)
    except OSError as error:
        return f"{(error.strerror or 'not readable').lower()}\n".encode()


def _packed(folder: str, parts: list[SupportPart]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for part in parts:
            content = without_secrets(part.content)[:MOST]
            entry = tarfile.TarInfo(f"{folder}/{part.name}")
            entry.size, entry.mtime, entry.mode = len(content), int(time.time()), 0o600
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()
