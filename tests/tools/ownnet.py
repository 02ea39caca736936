"""A network of a test's own, for what changes how the kernel treats all of a network: a thread that has left the
others' namespace (unshare(2)). Needs root; mark such tests ``netns``."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from tests.tools.sockets import PATIENCE

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def in_own_network(work: Callable[[], T], *commands: str, settings: dict[str, str] | None = None) -> T:
    """Call ``work`` in a thread whose network is new, and return or raise what it does. The network goes with the last
    socket in it.

    Args:
        commands: run there before, such as ``ip address add 10.9.0.1/32 dev lo``; lo is up.
        settings: by path below /proc/sys/net/, such as ``ipv4/ip_local_port_range``.
    """
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            if _libc.unshare(_CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            for command in ("ip link set lo up", *commands):
                subprocess.run(command.split(), check=True)
                if command.startswith("ip address add "):
                    _reach(command.split()[3].partition("/")[0])
            for name, value in (settings or {}).items():
                with open(f"/proc/sys/net/{name}", "w", encoding="ascii") as file:
                    file.write(value)
            results.append(work())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def _reach(host: str) -> None:
    """Wait until an address that was added is of use: for IPv6 the kernel does some of that later, in a worker."""
    deadline = time.monotonic() + PATIENCE
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listening:
        while True:
            try:
                return socket.create_connection(listening.getsockname()[:2], PATIENCE).close()
            except OSError:
                assert time.monotonic() < deadline, f"{host} cannot be reached"
                time.sleep(0.01)
