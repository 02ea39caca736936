"""Two hosts on one machine, made of network namespaces, as the demo, the system tests and the benchmarks use them.

    ┌ A: netns ────────────┐                                   ┌ B: netns ────────────┐
    │ mv0  10.77.0.1/24    │  ← proxies and their services →   │ mv0  10.77.0.2/24    │
    │ cable0 ══════════════╪═══════════ veth cable ════════════╪══════════════ cable0 │
    └──────────────────────┘                                   └──────────────────────┘
    ┌ A: machine_netns ────┐                                   ┌ B: machine_netns ────┐
    │ cable0 10.78.0.1/24 ═╪═══════════ veth cable ════════════╪═ cable0 10.78.0.2/24 │
    │ docker0, nft, NAT    │                                   │ docker0, nft, NAT    │
    └──┬───────────────────┘                                   └──┬───────────────────┘
    ┌ A: container_netns ──┐                                   ┌ B: container_netns ──┐
    │ eth0 172.17.0.2/16   │  ← the way Docker would go →      │ eth0 172.17.0.2/16   │
    └──────────────────────┘                                   └──────────────────────┘

mv0 is what ``hostlane net apply`` makes of the section ``interfaces`` in `LabHost.section`: a macvlan interface (bridge
mode) on cable0, in a namespace without a firewall. Docker has a namespace and a cable of its own, so that its rules and
its connection tracking are paid on the Docker path alone. Both ways are one cable long. The cables are not shaped until
asked.
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

from proxy.config import schema as config
from proxy.demo import docker_path, netns
from proxy.demo.netns import LabError
from proxy.demo.processes import begin, signals_held, stop
from proxy.errors import NetError
from proxy.netdev.apply import manage

__all__ = ["Lab", "LabError", "LabHost", "missing"]

CABLE = "cable0"

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
class LabHost:
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

    @property
    def cabled(self) -> tuple[str, str]:
        """The namespaces that have an end of a cable."""
        return self.netns, self.machine_netns

    @property
    def section(self) -> str:
        """YAML: ``interfaces`` of this host's configuration."""
        return f"interfaces:\n  mv0: {{parent: {CABLE}, addresses: [{self.address}/24]}}\n"

    def command(self, argv: Sequence[str], *, container: bool = False) -> list[str]:
        """The command line that runs ``argv`` in this host's namespace, or in its container's behind bridge and NAT."""
        return netns.inside(self.container_netns if container else self.netns, argv)

    def popen(self, argv: Sequence[str], *, container: bool = False, **options: Any) -> subprocess.Popen[Any]:
        """Start a process here, in a session of its own: Ctrl-C does not reach it. The lab ends it on exit."""
        return begin(self.command(argv, container=container), self.processes, options)

    def socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A socket of this process that lives on this host. The caller closes it."""
        return netns.make_socket(self.netns, family, kind)

    def cable_down(self) -> None:
        """Pull both cables at this end: packets are lost in both directions, connections stay."""
        self._link_set("down")

    def cable_up(self) -> None:
        self._link_set("up")

    def conntrack_count(self) -> int:
        """Connections that the machine's connection tracking holds now."""
        path = "/proc/sys/net/netfilter/nf_conntrack_count"
        return int(netns.run(netns.inside(self.machine_netns, ["cat", path])))

    def _link_set(self, state: str) -> None:
        for name in self.cabled:
            netns.run(["ip", "-n", name, "link", "set", CABLE, state])


class Lab:
    """Context manager: the two hosts exist inside the block.

    On exit, whatever the reason, every process started through ``LabHost.popen`` gets SIGTERM, everything still running
    in the namespaces a few seconds later gets SIGKILL, and the namespaces go. Signals wait until that is done. Several
    labs can exist side by side. Raises LabError from ``__enter__`` (nothing is left then either).

    Args:
        interfaces: whether mv0 is there from the beginning; without, somebody has ``hostlane net apply`` make it.
    """

    def __init__(self, *, interfaces: bool = True) -> None:
        self._interfaces = interfaces
        stem = f"{netns.PREFIX}-{os.getpid()}-{next(_serials)}"
        self.a = _host(stem, "host-a", "a", 1)
        self.b = _host(stem, "host-b", "b", 2)

    missing = staticmethod(missing)

    @property
    def hosts(self) -> tuple[LabHost, LabHost]:
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
        for here, there in zip(self.a.cabled, self.b.cabled, strict=True):
            netns.run(f"ip link add {CABLE} netns {here} type veth peer name {CABLE} netns {there}".split())
        for host in self.hosts:
            netns.run(f"ip -n {host.machine_netns} addr add {host.machine_address}/24 dev {CABLE}".split())
            # Or cable0 would answer ARP for mv0's address, and frames would come in past the macvlan.
            netns.run(host.command(["sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore"]))
            host.cable_up()
            docker_path.build(host.machine_netns, host.container_netns)
            if self._interfaces:
                _make_interfaces(host)

    def close(self) -> None:
        """End the processes and remove the namespaces; may be called again."""
        with signals_held():
            stop([*self.a.processes, *self.b.processes])
            for name in self._namespaces():
                netns.delete(name)

    def publish(self, port: int, container_port: int, host: LabHost | None = None) -> None:
        """``docker run -p PORT:CONTAINER_PORT`` on host B (or another), for clients that call its machine_address."""
        docker_path.publish((host or self.b).machine_netns, port, container_port)

    def shape(self, rate: str, *, burst: str = "128kb", latency: str = "50ms") -> None:
        """Shape each cable in both directions with a token bucket (tc-tbf).

        ``burst`` must hold a whole 64 KiB segment-offload packet; ``latency`` bounds the queue (50 ms: the example of
        the manual page).
        """
        for name in (*self.a.cabled, *self.b.cabled):
            qdisc = f"tc -n {name} qdisc replace dev {CABLE} root tbf"
            netns.run([*qdisc.split(), "rate", rate, "burst", burst, "latency", latency])

    def unshape(self) -> None:
        """Take the shaping away; harmless if there is none."""
        for name in (*self.a.cabled, *self.b.cabled):
            with contextlib.suppress(LabError):
                netns.run(f"tc -n {name} qdisc delete dev {CABLE} root".split())

    def _namespaces(self) -> Iterator[str]:
        for host in self.hosts:
            yield from (host.netns, host.container_netns, host.machine_netns)


def _make_interfaces(host: LabHost) -> None:
    """What `hostlane net apply` does, without the time that a new Python takes. Raises LabError."""
    text = f"host: {host.name}\nlinks: {{listen: {host.address}:7600, security: none}}\n{host.section}"
    try:
        with netns.entered(host.netns):
            manage.bring_up(config.parse(text, "lab"))
    except NetError as error:
        raise LabError(str(error)) from error


def _host(stem: str, name: str, side: str, number: int) -> LabHost:
    return LabHost(
        name=name,
        address=f"10.77.0.{number}",
        machine_address=f"10.78.0.{number}",
        netns=f"{stem}-{side}",
        machine_netns=f"{stem}-{side}-machine",
        container_netns=f"{stem}-{side}-container",
    )
