"""The running proxy's descriptor limit; without one, this process's, which a proxy started from here would inherit."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import socket
import struct

from control.base.reading.addresses import ADMIN_SOCKET
from proxy.check.context import DiagnosisContext
from proxy.check.readers import files
from proxy.check.report import Unchecked
from proxy.check.rules.limits import DescriptorFacts
from proxy.config.schema import Config

_LINE = re.compile(r"^Max open files\s+(\S+)\s+(\S+)", re.MULTILINE)
_UNLIMITED = 1 << 30
PATIENCE_S = 2.0


def read(context: DiagnosisContext) -> DescriptorFacts:
    """Finds the proxy by asking the kernel who listens on the admin socket; the proxy itself is not asked anything."""
    config = context.config
    pid = running(f"{config.run_dir}/{ADMIN_SOCKET}") if config else None
    if pid is None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        return _facts(config, "a process started from here", _bounded(soft), _bounded(hard), None)
    now = limits(files.text(f"/proc/{pid}/limits"))
    return _facts(config, f"the running proxy, process {pid},", *now, _open(pid))


def running(path: str) -> int | None:
    """The process that listens on a Unix socket, if one does."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE_S)
        try:
            sock.connect(path)
            pid, _, _ = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        except OSError:
            return None
    # The kernel says 0 for a process in a pid namespace that this one cannot see into.
    return int(pid) or None


def limits(text: str | Unchecked) -> tuple[int | Unchecked, int | Unchecked]:
    """Soft and hard limit out of /proc/PID/limits."""
    found = _LINE.search(text) if isinstance(text, str) else None
    if found is None:
        missing = Unchecked(
            "descriptor limit of the running proxy", text.why if isinstance(text, Unchecked) else "not listed"
        )
        return missing, missing
    soft, hard = (int(word) if word.isdecimal() else _UNLIMITED for word in found.groups())
    return soft, hard


def _facts(
    config: Config | None, owner: str, soft: int | Unchecked, hard: int | Unchecked, now: int | None
) -> DescriptorFacts:
    return DescriptorFacts(
        owner=owner,
        soft=soft,
        hard=hard,
        open=now,
        streams_per_link=config.limits.streams_per_link if config else None,
        links=config.links.max_per_peer * len(config.peers) if config else 0,
        listeners=len(config.upstreams) if config else 0,
    )


def _bounded(limit: int) -> int:
    return _UNLIMITED if limit == resource.RLIM_INFINITY else limit


def _open(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/fd"))
    return None
