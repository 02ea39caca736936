"""Two proxies, host-a and host-b: a service of host-b that is called through a Unix socket on host-a."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from random import randint
from typing import Any, Self

from proxy.demo.certificates import CertificateAuthority
from proxy.demo.lab import Lab
from tests.tools.process import Proxy
from tests.tools.sockets import connect

SERVICE = "echo"
PORT = 7600


class Mesh:
    """``with`` gives both proxies running and ready.

    Args:
        deliver: where host-b finds the service: ``unix:/path`` or ``tcp:host:port``.
        mtls: links with certificates, in each proxy's folder; without, ``security: none``.
        lab: two hosts of network namespaces; None: both proxies on the loopback interface.
        more: further top-level sections of both configurations, such as ``{"limits": {"stream_credit": "64KiB"}}``.

    Attributes:
        a, b: the proxies.
        upstream: what callers on host-a connect to.
        folder: a short path, gone after the block; the proxies' files, and room for sockets of the test's own.
    """

    def __init__(
        self, deliver: str, *, mtls: bool = False, lab: Lab | None = None, more: Mapping[str, Any] | None = None
    ) -> None:
        self._authority = CertificateAuthority() if mtls else None
        self.folder = Path(tempfile.mkdtemp(prefix="hl-"))
        self.upstream = f"unix:{self.folder}/a/{SERVICE}.sock"
        a, b = (f"{host}:{PORT}" for host in ((lab.a.address, lab.b.address) if lab else (_loopback(), _loopback())))
        peers = {"host-b": {"address": b, "services": [SERVICE]}}
        self.a = self._proxy("a", a, lab, {"peers": peers, "upstreams": {SERVICE: {"listen": self.upstream}}}, more)
        services = {SERVICE: {"deliver": deliver}}
        self.b = self._proxy("b", b, lab, {"peers": {"host-a": {"address": a}}, "services": services}, more)
        self._running = ExitStack()

    def call(self) -> socket.socket:
        """A new connection to the service, through both proxies. The caller closes it."""
        return connect(self.upstream)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, self.folder)
            for proxy in (self.b, self.a):
                stack.enter_context(proxy)
            self._running = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._running.__exit__(*error)

    def _proxy(
        self, side: str, listen: str, lab: Lab | None, sections: Mapping[str, Any], more: Mapping[str, Any] | None
    ) -> Proxy:
        folder = self.folder / side
        folder.mkdir()
        config: dict[str, Any] = {
            "host": f"host-{side}",
            "run_dir": f"{folder}/run",
            "links": {"listen": listen, **self._security(side)},
            "log": {"level": "debug", "format": "json"},
        }
        for name, section in {**sections, **(more or {})}.items():
            config[name] = {**config[name], **section} if isinstance(config.get(name), dict) else section
        return Proxy(config, folder, host=getattr(lab, side, None))

    def _security(self, side: str) -> dict[str, Any]:
        if self._authority is None:
            return {"security": "none"}
        return {"security": "mtls", "tls": self._authority.write(self.folder / side, f"host-{side}")}


def _loopback() -> str:
    """One of the 16 million addresses of this machine: unlike a port that was free a moment ago, nobody takes it."""
    return f"127.{randint(1, 254)}.{randint(0, 255)}.{randint(1, 254)}"
