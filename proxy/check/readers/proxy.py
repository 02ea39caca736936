"""What the proxy that runs with a configuration says of itself."""

from __future__ import annotations

from control.base.reading.addresses import ADMIN_SOCKET
from proxy.check.context import DiagnosisContext
from proxy.check.readers.runningproxy import running, told
from proxy.check.report import Unchecked
from proxy.check.rules.proxy import ProxyFacts


def read(context: DiagnosisContext) -> ProxyFacts:
    """Of a proxy that listens and has not answered when `admin.TIMEOUT` is over, that; nothing if none runs."""
    if context.config is None:
        return ProxyFacts(unseen=Unchecked("the running proxy", "give --config FILE"))
    status, why, refused = told(context.config)
    if status is not None:
        return ProxyFacts(
            pid=status.pid,
            cannot_accept=tuple(status.cannot_accept),
            config_stale=status.config_stale,
            record_stopped=status.record_stopped,
        )
    admin = f"{context.config.run_dir}/{ADMIN_SOCKET}"
    pid = running(admin) if why and not refused else None
    if pid is None:
        return ProxyFacts(unseen=Unchecked("the running proxy", why or f"{admin}: no proxy runs"))
    return ProxyFacts(pid=pid, silent=why)
