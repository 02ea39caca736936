"""Proxies with services behind them, on the two hosts of a lab, and what a system test wants to know of them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from proxy.demo import netns
from proxy.demo.certificates import CertificateAuthority
from proxy.demo.lab import Lab, LabHost
from proxy.demo.mesh import HOSTLANE
from tests.tools.process import Proxy
from tests.tools.servers import Echo
from tests.tools.sockets import connect, eventually

PORT = 7600
CALL_PORT = 7700
SERVE_PORT = 7800
KINDS = ("unix", "tcp")
"""Two services, named for the type of socket at both ends: callers come through one, the service listens on one."""


class World:
    """``with`` gives the proxies of host-a and host-b running and ready; callers are on host-a, services on host-b.

    Args:
        more: further top-level sections of both configurations, such as ``{"limits": {"stream_credit": "64KiB"}}``.
        echo: whether an echo server stands behind each service; without, the test makes its own (`deliver`).
        crossed: the service called through a Unix socket listens on TCP, and the other way round.
        mtls: links with certificates of `authority`, in each host's folder; without, ``security: none``.
        third: also run host-c, which offers the same services from its own folder; it is on host-b's machine.

    Attributes:
        a, b, c: the proxies; echoes: the servers behind host-b's services, by kind.
        folder: a short path, gone after the block, with a folder for each host's files.
    """

    def __init__(
        self,
        lab: Lab,
        *,
        more: Mapping[str, Any] | None = None,
        echo: bool = True,
        crossed: bool = False,
        mtls: bool = False,
        third: bool = False,
    ) -> None:
        self.lab = lab
        self.folder = Path(tempfile.mkdtemp(prefix="hl-"))
        self._more = more or {}
        self._echo = echo
        self._crossed = crossed
        self.authority = CertificateAuthority() if mtls else None
        self.addresses = {"a": lab.a.address, "b": lab.b.address, **({"c": "10.77.0.3"} if third else {})}
        self.echoes: dict[str, Echo] = {}
        services = {kind: {"deliver": self.deliver(kind)} for kind in KINDS}
        self.a = self._proxy("a", lab.a, upstreams={kind: {"listen": self.listen(kind)} for kind in KINDS})
        self.b = self._proxy("b", lab.b, services=services)
        if third:
            self.c = self._proxy("c", lab.b, services={"unix": {"deliver": self.deliver("unix", "c")}})
        self._running = ExitStack()

    def listen(self, kind: str) -> str:
        """What callers on host-a connect to."""
        return f"unix:{self.folder}/a/calls.sock" if kind == "unix" else f"tcp:127.0.0.1:{CALL_PORT}"

    def deliver(self, kind: str, host: str = "b") -> str:
        """Where a service of that kind listens."""
        unix = (kind == "unix") != self._crossed
        return f"unix:{self.folder}/{host}/service.sock" if unix else f"tcp:127.0.0.1:{SERVE_PORT}"

    def call(self, kind: str) -> socket.socket:
        """A new connection to a service, made on host-a. The caller closes it."""
        return connect(self.listen(kind), None if kind == "unix" else self.lab.a.socket())

    def server_socket(self, kind: str) -> socket.socket | None:
        """For a server of the test's own at `deliver`: a socket on host-b, where that matters."""
        return None if self.deliver(kind).startswith("unix:") else self.lab.b.socket()

    def ask(self, host: str, what: str) -> Any:
        """What the admin socket of ``a``, ``b`` or ``c`` says; ConnectionError or FileNotFoundError without one."""
        return ask(self.folder / host / "run" / "admin.sock", what)

    def counts(self) -> dict[str, int]:
        """Streams on each host whose proxy runs."""
        proxies = {"a": self.a, "b": self.b, **({"c": self.c} if "c" in self.addresses else {})}
        return {host: self.ask(host, "status")["streams"] for host, proxy in proxies.items() if proxy.running}

    def wait_until_idle(self) -> None:
        """Wait until no proxy has a stream any more."""
        eventually(lambda: not any(self.counts().values()), "no stream on any host")

    def kill_b(self) -> None:
        """kill -9 of host-b's proxy when there is a link to it; host-a knows afterwards."""
        self.a.wait_for("link up", peer="host-b")
        self.b.kill()
        self.a.wait_for("link down", peer="host-b")

    def links(self) -> int:
        """TCP connections between host-a and host-b, as the kernel of host-a counts them."""
        return established(self.lab.a, f"dst {self.lab.b.address}")

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, self.folder)
            if self._echo:
                for kind in KINDS:
                    self.echoes[kind] = stack.enter_context(Echo(self.deliver(kind), self.server_socket(kind)))
            if "c" in self.addresses:
                add_address(stack, self.lab.b, self.addresses["c"])
                stack.enter_context(self.c)
            for proxy in (self.b, self.a):
                stack.enter_context(proxy)
            self._running = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._running.__exit__(*error)

    def _proxy(self, side: str, host: LabHost, **sections: Any) -> Proxy:
        folder = self.folder / side
        folder.mkdir()
        others = [other for other in self.addresses if other != side]
        peers = {f"host-{other}": self._peer(other, offers=side == "a") for other in others}
        config: dict[str, Any] = {
            "host": f"host-{side}",
            "run_dir": f"{folder}/run",
            "links": {"listen": f"{self.addresses[side]}:{PORT}", **self._security(side)},
            "peers": peers,
            "log": {"level": "debug", "format": "json"},
            **sections,
        }
        for name, section in self._more.items():
            config[name] = {**config.get(name, {}), **section}
        return Proxy(config, folder, host=host)

    def _security(self, side: str) -> dict[str, Any]:
        if self.authority is None:
            return {"security": "none"}
        return {"security": "mtls", "tls": self.authority.write(self.folder / side, f"host-{side}")}

    def _peer(self, side: str, *, offers: bool) -> dict[str, Any]:
        services = {"b": list(KINDS), "c": ["unix"]}.get(side, []) if offers else []
        return {"address": f"{self.addresses[side]}:{PORT}", "services": services}


def add_address(stack: ExitStack, host: LabHost, address: str) -> None:
    """Give a host one more address for as long as the stack stands."""
    netns.run(["ip", "-n", host.netns, "address", "add", f"{address}/24", "dev", "mv0"])
    stack.callback(netns.run, ["ip", "-n", host.netns, "address", "delete", f"{address}/24", "dev", "mv0"])


def ask(admin: Path, what: str) -> Any:
    """``GET /what`` on an admin socket."""
    with connect(admin) as sock:
        sock.sendall(f"GET /{what} HTTP/1.1\r\nHost: proxy\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 200 " in head.splitlines()[0], answer
    return json.loads(body)


def established(host: LabHost, expression: str) -> int:
    """Established TCP connections of a host: one line each of ``ss -Htn``."""
    argv = ["ss", "-Htn", "state", "established", *expression.split()]
    return len(netns.run(host.command(argv)).splitlines())


def kill_links(host: LabHost) -> None:
    """`ss -K`: the kernel aborts the host's connections to and from the port of links, and resets the peer's. Waits for
    one: what was lost before may still be on its way back.
    """
    eventually(lambda: established(host, f"( dport = {PORT} or sport = {PORT} )") > 0, "a link to kill")
    for end in ("dport", "sport"):
        netns.run(host.command(["ss", "-HtnK", "state", "established", end, "=", str(PORT)]))


def hostlane(*words: str, host: LabHost | None = None, timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
    """Run the command ``hostlane`` to its end, on a host of the lab or here."""
    argv: Sequence[str] = [*HOSTLANE, *words]
    argv = host.command(argv) if host else argv
    return subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)


def signal_proxy(proxy: Proxy, number: int) -> None:
    """Send a signal and do not wait for what it does."""
    os.kill(proxy.pid, number)
