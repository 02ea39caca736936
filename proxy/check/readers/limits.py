"""The running proxy's descriptor limit; without one, this process's, which a proxy started from here would inherit."""

from __future__ import annotations

import contextlib
import os
import re
import resource

from control.base.reading.addresses import ADMIN_SOCKET
from proxy.check.context import DiagnosisContext
from proxy.check.readers import files
from proxy.check.readers.runningproxy import running
from proxy.check.report import Unchecked
from proxy.check.rules.limits import DescriptorFacts
from proxy.config.schema import Config

_LINE = re.compile(r"^Max open files\s+(\S+)", re.MULTILINE)
_UNLIMITED = 1 << 30


def read(context: DiagnosisContext) -> DescriptorFacts:
    """Finds the proxy by asking the kernel who listens on the admin socket; the proxy itself is not asked anything."""
    config = context.config
    pid = running(f"{config.run_dir}/{ADMIN_SOCKET}") if config else None
    if pid is None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # the proxy raises the soft one to it
        return _facts(config, "a process started from here", _bounded(hard), None)
    limit = soft_limit(files.text(f"/proc/{pid}/limits"))
    return _facts(config, f"the running proxy, process {pid},", limit, _open(pid))


def soft_limit(text: str | Unchecked) -> int | Unchecked:
    """The limit that holds, out of /proc/PID/limits."""
    found = _LINE.search(text) if isinstance(text, str) else None
    if found is None:
        why = text.why if isinstance(text, Unchecked) else "not listed"
        return Unchecked("descriptor limit of the running proxy", why)
    return int(found[1]) if found[1].isdecimal() else _UNLIMITED


def _facts(config: Config | None, owner: str, limit: int | Unchecked, now: int | None) -> DescriptorFacts:
    return DescriptorFacts(
        owner=owner,
        limit=limit,
        open=now,
        streams_per_link=config.limits.streams_per_link if config else None,
        links=config.links.max_per_peer * len(config.peers) if config else 0,
        listeners=len(config.upstreams) + (config.connect is not None) if config else 0,
    )


def _bounded(limit: int) -> int:
    return _UNLIMITED if limit == resource.RLIM_INFINITY else limit


def _open(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/fd"))
    return None
