"""HAProxy in tcp mode, one thread, at both ends: a TCP connection over macvlan for each client's connection."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.errors import BenchError
from benchmarks.paths.base import ProxyPair
from benchmarks.testbed import Testbed

_CONFIG = """\
global
    nbthread 1
    maxconn {connections}
defaults
    mode tcp
    maxconn {connections}
    backlog 4096
    timeout connect 10s
    timeout client 1h
    timeout server 1h
frontend entry
    bind {listen}
{more}    default_backend exit
backend exit
    server there {to}
"""


class HAProxy(ProxyPair):
    port = 7610

    def __init__(self, name: str, bed: Testbed) -> None:
        super().__init__(name, bed)
        self.second_entry = self.folder / "second.sock"

    def commands(self) -> tuple[list[str], list[str]]:
        program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
        if program is None:
            raise BenchError("haproxy is not installed (Debian: apt-get install haproxy)")
        connections = (self.bed.descriptors - 100) // 2  # two descriptors each
        between = f"{self.bed.lab.b.address}:{self.port}"
        here, there = self._between(between)
        ways = {"a": (f"unix@{self.entry}", here), "b": (there, f"unix@{self.bed.server_socket}")}
        for side, (listen, to) in ways.items():
            more = f"    bind unix@{self.second_entry}\n" if side == "a" else ""
            text = _CONFIG.format(listen=listen, to=to, connections=connections, more=more)
            (self.folder / f"{side}.cfg").write_text(text)
        argv = [program, "-db", "-f"]
        return [*argv, str(self.folder / "a.cfg")], [*argv, str(self.folder / "b.cfg")]

    def _between(self, address: str) -> tuple[str, str]:
        """The connection between the hosts, as A's ``server`` line and B's ``bind`` line have it."""
        return address, address


class HAProxyMtls(HAProxy):
    """The same with mutual TLS 1.3: a handshake for each client's connection, resumed where HAProxy does so itself."""

    port = 7611
    variant = "mtls"

    def _between(self, address: str) -> tuple[str, str]:
        lines = []
        for side, files in self.certificates().items():
            combined = self.folder / f"{side}.pem"
            combined.write_text(Path(files["certificate"]).read_text() + Path(files["key"]).read_text())
            lines.append(f"{address} ssl crt {combined} ca-file {files['ca']} verify required ssl-min-ver TLSv1.3")
        return lines[0], lines[1]
