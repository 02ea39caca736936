"""Two hosts on one machine, made of network namespaces, as the demo, the system tests and the benchmarks use them.

    ┌ A: netns ────────────┐                                   ┌ B: netns ────────────┐
    │ mv0  10.77.0.1/24    │  ← proxies and their services →   │ mv0  10.77.0.2/24    │
    └──┬───────────────────┘                                   └──┬───────────────────┘
    ┌ A: machine_netns ────┐                                   ┌ B: machine_netns ────┐
    │ cable0 10.78.0.1/24 ═╪═══════════ veth cable ════════════╪═ cable0 10.78.0.2/24 │
    │ docker0, nft, NAT    │                                   │ docker0, nft, NAT    │
    └──┬───────────────────┘                                   └──┬───────────────────┘
    ┌ A: container_netns ──┐                                   ┌ B: container_netns ──┐
    │ eth0 172.17.0.2/16   │  ← the way Docker would go →      │ eth0 172.17.0.2/16   │
    └──────────────────────┘                                   └──────────────────────┘

mv0 is a macvlan interface (bridge mode) on cable0 in a namespace without a firewall, as a macvlan container has it:
its frames leave the machine's namespace before any of the machine's hooks, so connection tracking sees the Docker path
alone. The cable is not shaped until asked.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from proxy.demo import docker_path, netns
from proxy.demo.netns import LabError
from proxy.demo.processes import signals_held, stop
from proxy.errors import NetError

__all__ = ["Host", "Lab", "LabError", "missing"]

_serials = itertools.count()


def missing() -> str | None:
    """Why a lab cannot be built here, in one line; None if it can."""
    if os.geteuid() != 0:
        return "not root (network namespaces need it)"
    for command, package in (("ip", "iproute2"), ("tc", "iproute2"), ("nft", "nftables")):
        if shutil.which(command) is None:
            return f"{command} is not installed (Debian: apt-get install {package})"
    probe = f"{netns.PREFIX}-{os.getpid()}-{next(_serials)}-probe"
    try:
        netns.add(probe)
        netns.run(netns.inside(probe, ["nft", "list", "ruleset"]))
    except LabError as error:
        return f"no right to make network namespaces ({error})"
    finally:
        netns.delete(probe)
    return None


@dataclass(frozen=True)
class Host:
    """One side of the cable."""

    name: str
    address: str
    """On mv0, the macvlan interface in ``netns``."""
    machine_address: str
    """On cable0, in ``machine_netns``; what a port published by Docker is reached at."""
    netns: str
    machine_netns: str
    container_netns: str
    processes: list[subprocess.Popen[Any]] = field(default_factory=list, repr=False, compare=False)

    def command(self, argv: Sequence[str], *, container: bool = False) -> list[str]:
        """The command line that runs ``argv`` in this host's namespace, or in its container's behind bridge and NAT."""
        return netns.inside(self.container_netns if container else self.netns, argv)

    def popen(self, argv: Sequence[str], *, container: bool = False, **options: Any) -> subprocess.Popen[Any]:
        """Start a process here, in a session of its own: Ctrl-C does not reach it. The lab ends it on exit."""
        options.setdefault("start_new_session", True)
        process = subprocess.Popen(self.command(argv, container=container), **options)
        self.processes.append(process)
        return process

    def socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A socket of this process that lives on this host. The caller closes it."""
        return netns.make_socket(self.netns, family, kind)

    def cable_down(self) -> None:
        """Pull the cable at this end: packets are lost in both directions, connections stay."""
        self._link_set("down")

    def cable_up(self) -> None:
        self._link_set("up")

    def conntrack_count(self) -> int:
        """Connections that the machine's connection tracking holds now."""
        path = "/proc/sys/net/netfilter/nf_conntrack_count"
        return int(netns.run(netns.inside(self.machine_netns, ["cat", path])))

    def _link_set(self, state: str) -> None:
        netns.run(["ip", "-n", self.machine_netns, "link", "set", "cable0", state])


class Lab:
    """Context manager: the two hosts exist inside the block.

    On exit, whatever the reason, every process started through ``Host.popen`` gets SIGTERM, everything still running in
    the namespaces a few seconds later gets SIGKILL, and the namespaces go. SIGINT and SIGTERM wait until that is
    done.
    Several labs can exist side by side. Raises LabError from ``__enter__`` (nothing is left then either).
    """

    def __init__(self) -> None:
        stem = f"{netns.PREFIX}-{os.getpid()}-{next(_serials)}"
        self.a = _host(stem, "host-a", "a", 1)
        self.b = _host(stem, "host-b", "b", 2)

    missing = staticmethod(missing)

    @property
    def hosts(self) -> tuple[Host, Host]:
        return self.a, self.b

    def __enter__(self) -> Self:
        for left_over in netns.abandoned():
            netns.delete(left_over)
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _build(self) -> None:
        for name in self._namespaces():
            netns.add(name)
        here, there = self.a.machine_netns, self.b.machine_netns
        netns.run(f"ip link add cable0 netns {here} type veth peer name cable0 netns {there}".split())
        for host in self.hosts:
            machine = host.machine_netns
            commands = [
                f"ip -n {machine} addr add {host.machine_address}/24 dev cable0",
                f"ip -n {machine} link set cable0 up",
            ]
            for command in commands:
                netns.run(command.split())
            _give_macvlan(host)
            docker_path.build(machine, host.container_netns)

    def close(self) -> None:
        """End the processes and remove the namespaces; may be called again."""
        with signals_held():
            stop([*self.a.processes, *self.b.processes])
            for name in self._namespaces():
                netns.delete(name)

    def publish(self, port: int, container_port: int, host: Host | None = None) -> None:
        """``docker run -p PORT:CONTAINER_PORT`` on host B (or another), for clients that call its machine_address."""
        docker_path.publish((host or self.b).machine_netns, port, container_port)

    def shape(self, rate: str, *, burst: str = "128kb", latency: str = "50ms") -> None:
        """Shape the cable in both directions with a token bucket (tc-tbf).

        ``burst`` must hold a whole 64 KiB segment-offload packet; ``latency`` bounds the queue (50 ms: the example of
        the manual page).
        """
        for host in self.hosts:
            qdisc = f"tc -n {host.machine_netns} qdisc replace dev cable0 root tbf"
            netns.run([*qdisc.split(), "rate", rate, "burst", burst, "latency", latency])

    def unshape(self) -> None:
        """Take the shaping away; harmless if there is none."""
        for host in self.hosts:
            with contextlib.suppress(LabError):
                netns.run(f"tc -n {host.machine_netns} qdisc delete dev cable0 root".split())

    def _namespaces(self) -> Iterator[str]:
        for host in self.hosts:
            yield from (host.netns, host.container_netns, host.machine_netns)


def _give_macvlan(host: Host) -> None:
    """As `hostlane net attach` gives one to a container. Raises LabError."""
    from proxy import config
    from proxy.netdev.containers import give

    wanted = config.parse(
        f"host: {host.name}\nlinks: {{listen: {host.address}:7600, security: none}}\n"
        f"containers: {{lab: {{name: mv0, parent: cable0, addresses: [{host.address}/24]}}}}\n",
        "lab",
    )
    try:
        with netns.entered(host.machine_netns), open(f"/run/netns/{host.netns}", "rb") as namespace:
            give(wanted, "lab", namespace.fileno(), wanted.containers["lab"])
    except NetError as error:
        raise LabError(str(error)) from error


def _host(stem: str, name: str, side: str, number: int) -> Host:
    return Host(
        name=name,
        address=f"10.77.0.{number}",
        machine_address=f"10.78.0.{number}",
        netns=f"{stem}-{side}",
        machine_netns=f"{stem}-{side}-machine",
        container_netns=f"{stem}-{side}-container",
    )
