"""Two hosts joined by a cable, each on a core of its own, and the server on host B.

Everything of host A (client and proxy) runs on core 0, everything of host B (proxy and server) on core 1. Everything
that is started here ends with this process, even if it is killed.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.build import Programs
from benchmarks.errors import BenchError
from benchmarks.loadrun import Target
from proxy.demo.lab import Lab, LabError, LabHost

DIRECT_PORT = 7700
CONTAINER_PORT = 7701
PUBLISHED_PORT = 7702
DESCRIPTORS = 262_144
PREFIX = "hostlane-bench-"
"""Folders are named hostlane-bench-PID-RANDOM, PID being the run that made them."""

# A new connection per request uses up the ports of a client within seconds otherwise. The same on every path.
_SYSCTLS = {
    "net/ipv4/ip_local_port_range": "1024 65535",
    "net/ipv4/ip_local_reserved_ports": "7600-7799",
    "net/ipv4/tcp_tw_reuse": "1",
    "net/netfilter/nf_conntrack_tcp_timeout_time_wait": "10",
}


class Testbed:
    """Context manager. ``folder`` holds the sockets, configurations and logs of this run, and goes at the end."""

    descriptors: int
    """How many each process may have."""

    folder: Path
    server_socket: Path

    def __init__(self, programs: Programs) -> None:
        self.programs = programs
        self.lab = Lab()
        self.cores = _cores()

    def __enter__(self) -> Self:
        self.descriptors = raise_descriptor_limit()
        remove_abandoned_folders()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
        self.server_socket = self.folder / "server.sock"
        try:
            self.lab.__enter__()
            self._set_up()
        except LabError as error:
            self.close()
            raise BenchError(str(error)) from None
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.lab.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _set_up(self) -> None:
        for host in (self.lab.a, self.lab.b):
            for container in (False, True):
                _set_sysctls(host, container)
            _set_sysctls_in(["ip", "netns", "exec", host.machine_netns])
        self.lab.publish(PUBLISHED_PORT, CONTAINER_PORT)
        self._start_server(f"unix:{self.server_socket}", f"tcp:{self.lab.b.address}:{DIRECT_PORT}")
        self._start_server(f"tcp:172.17.0.2:{CONTAINER_PORT}", container=True)

    def _start_server(self, *addresses: str, container: bool = False) -> None:
        listen = [word for address in addresses for word in ("--listen", address)]
        argv = [str(self.programs.echo), *listen]
        process = self.start(self.lab.b, argv, container=container, stdout=subprocess.PIPE)
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise BenchError(f"the server did not start on {', '.join(addresses)}")

    def start(
        self,
        host: LabHost,
        argv: Sequence[str],
        *,
        container: bool = False,
        stdout: int | None = None,
        log: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a process on a host and its core, its output to ``log``. The caller or the end of the bed ends it."""
        pinned = ["taskset", "-c", str(self.core(host)), "setpriv", "--pdeathsig", "KILL", *argv]
        with open(log or os.devnull, "ab") as sink:
            return host.popen(pinned, container=container, stdout=stdout or sink, stderr=sink, stdin=subprocess.DEVNULL)

    def core(self, host: LabHost) -> int:
        return self.cores[0] if host is self.lab.a else self.cores[1]

    def client(self, address: str, *, container: bool = False, pids: tuple[int, ...] = ()) -> Target:
        """A client on host A."""
        prefix = self.lab.a.command(["taskset", "-c", str(self.cores[0])], container=container)
        return Target(tuple(prefix), address, pids)

    def links(self, port: int, *, container: bool = False) -> int:
        """TCP connections of host A to or from that port that are established now."""
        ends = ["(", "dport", "=", f":{port}", "or", "sport", "=", f":{port}", ")"]
        argv = self.lab.a.command(["ss", "-Htn", "state", "established", *ends], container=container)
        return len(subprocess.run(argv, capture_output=True, text=True, check=False).stdout.splitlines())


def raise_descriptor_limit() -> int:
    """For this process and all that it starts; how many descriptors each may have now."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    want = max(hard, min(DESCRIPTORS, int(Path("/proc/sys/fs/nr_open").read_text())))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (want, want))
    except ValueError:  # root, but without CAP_SYS_RESOURCE, as in some containers
        want = hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return want


def remove_abandoned_folders() -> None:
    """Those whose run was killed before it could clean up. The lab does the same with its namespaces."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        pid = folder.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(folder, ignore_errors=True)


def _cores() -> tuple[int, int]:
    """Two cores; with only one the sides share it, and the header says so."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[min(1, len(usable) - 1)]


def _set_sysctls(host: LabHost, container: bool) -> None:
    _set_sysctls_in(host.command([], container=container))


def _set_sysctls_in(prefix: list[str]) -> None:
    script = "; ".join(
        f"[ -e /proc/sys/{name} ] && echo '{value}' > /proc/sys/{name}" for name, value in _SYSCTLS.items()
    )
    subprocess.run([*prefix, "sh", "-c", script], capture_output=True, check=False)
