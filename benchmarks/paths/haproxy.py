"""HAProxy in tcp mode, one thread, at both ends: a TCP connection over macvlan for each client's connection."""

from __future__ import annotations

import shutil

from benchmarks.errors import BenchError
from benchmarks.paths.base import ProxyPair

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
    default_backend exit
backend exit
    server there {to}
"""


class HAProxy(ProxyPair):
    port = 7610

    def commands(self) -> tuple[list[str], list[str]]:
        program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
        if program is None:
            raise BenchError("haproxy is not installed (Debian: apt-get install haproxy)")
        connections = (self.bed.descriptors - 100) // 2  # two descriptors each
        between = f"{self.bed.lab.b.address}:{self.port}"
        ways = {"a": (f"unix@{self.entry}", between), "b": (between, f"unix@{self.bed.server_socket}")}
        for side, (listen, to) in ways.items():
            text = _CONFIG.format(listen=listen, to=to, connections=connections)
            (self.folder / f"{side}.cfg").write_text(text)
        argv = [program, "-db", "-f"]
        return [*argv, str(self.folder / "a.cfg")], [*argv, str(self.folder / "b.cfg")]
