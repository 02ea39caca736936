"""The directories and sockets that a configuration names; to those of services nothing is connected."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from control.base.reading.addresses import UnixAddress
from proxy.check.context import DiagnosisContext
from proxy.check.readers import files, ownsockets
from proxy.check.report import Unchecked
from proxy.check.rules.sockets import ServiceSocket, SocketDirectory, SocketFacts
from proxy.config.schema import Config


def read(context: DiagnosisContext) -> SocketFacts:
    """As far as this process may look."""
    if context.config is None:
        return SocketFacts(configured=False)
    config = context.config
    return SocketFacts(
        directories=tuple(_directories(config)), sockets=tuple(_sockets(config)), missing=ownsockets.missing(config)
    )


def _directories(config: Config) -> Iterator[SocketDirectory | Unchecked]:
    """Each once, for the widest of the sockets in it."""
    wanted = {config.run_dir: ("run_dir", False)}
    if config.telemetry.socket is not None:
        path = os.path.dirname(config.telemetry.socket)
        wanted[path] = ("telemetry.socket", bool(config.telemetry.mode & stat.S_IWOTH))
    if (every := config.all_upstreams) is not None:
        wanted[every.directory or config.socket_dir] = ("all_upstreams", bool(every.mode & stat.S_IWOTH))
    sockets = {f"upstreams.{name}": upstream for name, upstream in config.upstreams.items()}
    if config.connect is not None:
        sockets["connect"] = config.connect.socket
    for key, socket in sockets.items():
        if isinstance(socket.listen, UnixAddress):
            path = os.path.dirname(socket.listen.path)
            _, for_others = wanted.get(path, ("", False))
            wanted[path] = (f"{key}.listen", for_others or bool(socket.mode & stat.S_IWOTH))
    for path, (used_by, for_others) in wanted.items():
        yield _directory(path, used_by, for_others)


def _directory(path: str, used_by: str, for_others: bool) -> SocketDirectory | Unchecked:
    try:
        found = os.stat(path)
        return SocketDirectory(
            path=path,
            used_by=used_by,
            mode=found.st_mode,
            is_directory=stat.S_ISDIR(found.st_mode),
            read_only=bool(os.statvfs(path).f_flag & os.ST_RDONLY),
            for_others=for_others,
        )
    except FileNotFoundError:
        return SocketDirectory(path=path, used_by=used_by, for_others=for_others)
    except OSError as error:
        return files.unseen(f"{path} ({used_by})", error)


def _sockets(config: Config) -> Iterator[ServiceSocket | Unchecked]:
    for name, service in config.services.items():
        if isinstance(service.deliver, UnixAddress):
            yield _socket(service.deliver.path, f"services.{name}.deliver")


def _socket(path: str, used_by: str) -> ServiceSocket | Unchecked:
    try:
        return ServiceSocket(path=path, used_by=used_by, is_socket=stat.S_ISSOCK(os.stat(path).st_mode))
    except FileNotFoundError:
        there = os.path.isdir(os.path.dirname(path))
        return ServiceSocket(path=path, used_by=used_by, exists=False, directory_exists=there)
    except OSError as error:
        return files.unseen(f"{path} ({used_by})", error)
