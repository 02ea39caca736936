"""The sockets of the proxy that runs with a configuration: whether their files are there."""

from __future__ import annotations

import os
from collections.abc import Iterator

from control.api.messages import Status
from control.base.reading.addresses import ADMIN_SOCKET, HANDOVER_SOCKET, UnixAddress
from control.base.system.socketpath import SocketPath
from proxy.check.readers.runningproxy import is_socket, told
from proxy.check.report import Unchecked
from proxy.check.rules.sockets import MissingSocket
from proxy.config.schema import Config

LOCKS = "/proc/locks"


def missing(config: Config) -> tuple[MissingSocket | Unchecked, ...]:
    """Those that are not there; none if no proxy runs."""
    admin = f"{config.run_dir}/{ADMIN_SOCKET}"
    asked, why, _ = told(config)
    if asked is None and not _is_held(admin):
        return ()
    if asked is None and is_socket(admin):
        return (Unchecked("sockets of the running proxy", why),)
    said = [] if asked is None else [line for line in asked.missing if line.startswith("cannot listen on unix:")]
    found = [MissingSocket(read=line) for line in said]
    for path, used_by in _wanted(config, asked):
        if not is_socket(path) and not any(f"unix:{path}:" in line for line in said):
            found.append(MissingSocket(read=f"{path} ({used_by}) is not there, and a proxy runs"))
    return tuple(found)


def _wanted(config: Config, status: Status | None) -> Iterator[tuple[str, str]]:
    for name in (ADMIN_SOCKET, HANDOVER_SOCKET):
        yield f"{config.run_dir}/{name}", "run_dir"
    if config.telemetry.socket is not None:
        yield config.telemetry.socket, "telemetry.socket"
    if status is not None:
        for each in status.upstreams:
            if each.listen.startswith("unix:"):
                yield each.listen.removeprefix("unix:"), f"upstreams.{each.service}.listen"
        if status.connect is not None and status.connect.listen.startswith("unix:"):
            yield status.connect.listen.removeprefix("unix:"), "connect.listen"
        return
    for service, upstream in config.upstreams.items():
        if isinstance(upstream.listen, UnixAddress):
            yield upstream.listen.path, f"upstreams.{service}.listen"
    if config.connect is not None and isinstance(config.connect.listen, UnixAddress):
        yield config.connect.listen.path, "connect.listen"


def _is_held(path: str) -> bool:
    """Whether a process has the lock of a socket, as far as this one may know: then the socket should be there."""
    directory, name = os.path.split(path)
    lock = SocketPath(directory, name, -1).lock
    try:
        found = os.stat(os.path.join(directory, lock))
        with open(LOCKS, encoding="ascii") as locks:
            lines = locks.read().splitlines()
    except OSError:
        return False
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    return any(" FLOCK " in f" {line} " and place in line.split() for line in lines)
