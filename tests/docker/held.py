"""What a process and a host hold of containers: descriptors by kind, sockets of other network namespaces, macvlans."""

from __future__ import annotations

import ctypes
import os
import re
import socket
from collections import Counter
from pathlib import Path

from proxy.door.namespaces import cookie_of
from tests.docker.engines import EngineHost

SYS_PIDFD_GETFD = 438
"""asm-generic/unistd.h; Python's os module does not have it."""


def descriptors(host: EngineHost, name: str) -> Counter[str]:
    """How many descriptors the first process of a container has of each kind."""
    folder = Path("/proc", pid_of(host, name), "fd")
    found: Counter[str] = Counter()
    for each in folder.iterdir():
        try:
            found[re.sub(r"\d+", "N", os.readlink(each))] += 1
        except FileNotFoundError:
            continue
    return found


def of_other_namespaces(host: EngineHost, name: str) -> int:
    """How many TCP sockets it has that were made in another network namespace than the host's: each would keep that
    one, and its interfaces and addresses, alive.
    """
    pid = pid_of(host, name)
    with host.host.socket() as ours:
        own = cookie_of(ours)
    found = 0
    process = os.pidfd_open(int(pid))
    try:
        for each in Path("/proc", pid, "fd").iterdir():
            copy = ctypes.CDLL(None).syscall(SYS_PIDFD_GETFD, process, int(each.name), 0)
            if copy < 0:
                continue
            try:
                with socket.socket(fileno=copy) as sock:
                    found += sock.family in (socket.AF_INET, socket.AF_INET6) and cookie_of(sock) != own
            except OSError:  # no socket
                os.close(copy)
    finally:
        os.close(process)
    return found


def pid_of(host: EngineHost, name: str) -> str:
    """Of the first process of a container, here."""
    return host.docker("inspect", "--format={{.State.Pid}}", name)


def hardware_addresses(host: EngineHost) -> int:
    """How many addresses the host's cable receives for: one for each macvlan, wherever that is now."""
    return len(host.host_run("bridge", "fdb", "show", "dev", "cable0").splitlines())


def namespaces(host: EngineHost) -> int:
    """How many namespaces the engine has in files. (It takes a file away up to a minute after the namespace.)"""
    kept = os.stat("/proc/self/ns/net").st_dev
    return sum(each.stat().st_dev == kept for each in host.seen("exec/netns").iterdir())
