"""Rules, connection tracking and docker-proxy processes, here and in the namespaces of macvlan containers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from control.base.reading.addresses import TcpAddress
from proxy.check.context import DiagnosisContext
from proxy.check.readers import files, ruleset, tracking
from proxy.check.readers.namespaces import elsewhere, enter
from proxy.check.report import Unchecked
from proxy.check.rules.netfilter import BridgeParent, ContainerNamespace, NetfilterFacts, UserlandProxy
from proxy.config.schema import Config
from proxy.errors import NetError

_DOCKER_DNS = "127.0.0.11"


def read(context: DiagnosisContext) -> NetfilterFacts:
    """Sends a few datagrams to each peer, or over loopback if there is none."""
    return NetfilterFacts(
        here=_here(context),
        others=tuple(_others(context)),
        bridge_parents=tuple(_bridge_parents(context)),
        bridge_nf=files.sysctl("net.bridge.bridge-nf-call-iptables"),
        proxies=tuple(_userland_proxies(context.config)),
    )


def _here(context: DiagnosisContext) -> ContainerNamespace:
    targets = [target.address for target in context.targets if target.address is not None] or ["127.0.0.1"]
    return ContainerNamespace(
        label="this namespace",
        enter="",
        interfaces=tuple(found.name for found in context.snapshot.interfaces if context.offloaded(found)),
        ruleset=ruleset.read(),
        tracking=tuple(tracking.measure(address, context.bind) for address in targets),
        count=tracking.count(),
        docker_resolver=_has_docker_resolver(),
    )


def _others(context: DiagnosisContext) -> Iterator[ContainerNamespace]:
    children = () if isinstance(context.children, Unchecked) else context.children
    for pid in sorted({child.pid for child in children}):
        members = [child for child in children if child.pid == pid]
        with contextlib.suppress(NetError):
            rules, count = enter(pid, lambda: (ruleset.read(), tracking.count()))
            yield ContainerNamespace(
                label=members[0].label,
                enter=f"nsenter -t {pid} -n ",
                interfaces=tuple(child.interface.name for child in members),
                ruleset=rules,
                count=count,
            )


def _bridge_parents(context: DiagnosisContext) -> Iterator[BridgeParent]:
    """Of macvlans whose parent is in this namespace. Elsewhere the bridge's sysctl is another one."""
    for interface in context.snapshot.interfaces:
        parent = context.snapshot.parent_of(interface)
        if interface.kind == "macvlan" and parent is not None and parent.kind == "bridge":
            yield BridgeParent(macvlan=interface.name, bridge=parent.name)
    for child in () if isinstance(context.children, Unchecked) else context.children:
        if child.interface.kind == "macvlan" and child.parent.kind == "bridge":
            yield BridgeParent(macvlan=f"{child.interface.name} ({child.label})", bridge=child.parent.name)


def _has_docker_resolver() -> bool:
    found = files.text("/etc/resolv.conf")
    return isinstance(found, str) and f"nameserver {_DOCKER_DNS}" in found


def _userland_proxies(config: Config | None) -> Iterator[UserlandProxy]:
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError, ValueError):
            if Path(f"/proc/{name}/comm").read_text().strip() == "docker-proxy" and not elsewhere(int(name)):
                words = Path(f"/proc/{name}/cmdline").read_text().split("\0")
                yield userland_proxy(int(name), words, config)


def userland_proxy(pid: int, words: list[str], config: Config | None) -> UserlandProxy:
    """A docker-proxy by its command line. Raises ValueError if that is not one of docker-proxy."""
    value = {option: words[words.index(option) + 1] for option in (
        "-host-ip", "-host-port", "-container-ip", "-container-port",
    )}  # fmt: skip
    port = int(value["-host-port"])
    wanted = []
    for name, service in config.services.items() if config else ():
        target = service.deliver
        if isinstance(target, TcpAddress) and target.port == port and _over_loopback(target.host, value["-host-ip"]):
            wanted.append(f"services.{name}.deliver")
    return UserlandProxy(
        pid=pid,
        published=TcpAddress(value["-host-ip"], port).hostport,
        target=TcpAddress(value["-container-ip"], int(value["-container-port"])).hostport,
        wanted_by=tuple(wanted),
    )


def _over_loopback(host: str, published: str) -> bool:
    """Whether what connects to ``host`` over loopback ends in a docker-proxy that listens on ``published``."""
    if ":" in published:
        return host in ("::1", "localhost")
    return host.startswith("127.") or host == "localhost"
