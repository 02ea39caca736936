"""A control server: builds every part once, owns the top nursery, and knows the order of starting and stopping.

Starting: the store and this server's certificate, then the sockets, so that a failure is one line and leaves nothing
behind. Stopping (SIGTERM, SIGINT): no new clients, watches end, requests under way are answered for `STOP_TIMEOUT` at
most. Hosts stay on the map: they find another control server, or this one when it is back.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from control.base.errors import StartError
from control.base.reading.addresses import CONTROL_SOCKET, TcpAddress, socket_address
from control.base.scraping import METRICS, Scraped, ScrapeServer
from control.base.system import watchdog
from control.base.system.accepting import accept_all
from control.base.system.commanders import Commanders
from control.base.system.keptsocket import KeptSocket
from control.base.system.notify import Notices
from control.base.system.rundir import make_run_dir
from control.base.system.unixsock import bind_unix, group_number
from control.base.version import VERSION
from control.ca.issuing import Issuer, ServerCertificate
from control.ca.joining import HostEnrolment
from control.ca.keyfiles import KeyFiles
from control.ca.rotation import CaRotation
from control.server import localsocket
from control.server.addressbook import AddressBook
from control.server.api import ROUTES, Api
from control.server.clients import Clients
from control.server.config import Config, EtcdConfig
from control.server.credentials import client_context, server_context
from control.server.edges import EdgeBook, MeshEdges
from control.server.hosts import HostRegistry
from control.server.limits import ConnectionLimiter
from control.server.meshpage import MeshPage
from control.server.metrics import ControlMetrics
from control.server.mirror import StoreMirror
from control.server.openapi import document
from control.server.routes import ApiRoutes
from control.server.servers import ControlServers, ServerEntry
from control.server.watching import MapWatchers
from control.store.base import Store
from control.store.timed import TimedStore

if TYPE_CHECKING:
    from control.store.gateway import EtcdAccess

__all__ = ["CA_FOLDER", "STOP_TIMEOUT", "check_files", "keys_of", "open_store", "run"]

log = structlog.get_logger()

CA_FOLDER = "ca"
"""In state_dir: the CA's files."""
STOP_TIMEOUT = 5.0
"""Seconds that requests under way have after SIGTERM; they take milliseconds."""
BACKLOG = 1024
"""Connections that may wait to be accepted: a thousand hosts come back together after a restart."""


async def run(config: Config, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
    """Run one control server until SIGTERM or SIGINT; started with the port that it listens on.

    Raises StartError if this machine cannot start it. Cancelled, it ends all clients at once; nothing stays behind but
    directories and the store.
    """
    with ExitStack() as files:
        # First, because a signal that nobody has asked for yet would kill the process.
        signals = files.enter_context(trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT))
        async with open_store(config) as opened:
            store = TimedStore(opened)
            keys = keys_of(config)
            issuer = Issuer(store, keys, mesh=config.mesh, lifetime=config.certificate_lifetime)
            await issuer.open()
            book = AddressBook(store, config.segments)
            servers = ControlServers(config.name, config.listen.hostport, config.limits.watchers)
            watching = MapWatchers(config.limits.watchers, servers=servers)
            admission = ConnectionLimiter(config.limits.connections, config.limits.connections_per_client)
            edge_book = EdgeBook()
            edges = MeshEdges(edge_book, servers, config.mesh)
            api = Api(
                config.name,
                config.mesh,
                hosts=HostRegistry(store, book, issuer, config.lease, watching.namesakes, servers),
                book=book,
                joining=HostEnrolment(store, issuer, servers=lambda: servers.addresses),
                issuer=issuer,
                rotation=CaRotation(store, keys, mesh=config.mesh),
                watching=watching,
                admission=admission,
                backup=store.backup,
                edge_book=edge_book,
                edges=edges,
            )
            api.document = document(ROUTES, VERSION)
            clients = Clients(ApiRoutes(ROUTES), api, watching, config.limits, config.mesh, admission, servers.reached)

            mirror, expires = StoreMirror(store, watching), 0.0

            def use(own: ServerCertificate) -> None:
                nonlocal expires
                clients.context, expires = server_context(own), own.not_after
                edges.context = client_context(own)

            group = group_number("admin.group", config.admin.group)
            make_directory, mode = partial(make_run_dir, config.run_dir, group), 0o600 if group is None else 0o660
            make_directory()
            bound = bind_unix(f"{config.run_dir}/{CONTROL_SOCKET}", mode=mode, group=group)
            local = KeptSocket(bound, mode=mode, group=group, prepare=make_directory)
            files.callback(local.close)
            serve_local = partial(clients.serve_local, Commanders(group, config.admin.origin == "any"))
            listener = _listen(config.listen)
            files.callback(listener.close)
            telemetry = config.telemetry
            scraped = None if telemetry.listen is None else _listen(telemetry.listen, " (telemetry.listen)")
            if scraped is not None:
                files.callback(scraped.close)
            metrics = ControlMetrics(store, clients, watching, mirror, lambda: expires)
            notices = Notices()
            async with trio.open_nursery() as parts:
                await parts.start(issuer.keep_certificate, config.name, use)
                parts.start_soon(notices.run)
                await parts.start(mirror.run)
                await parts.start(watching.run)
                if config.store.etcd is not None:  # otherwise this is the only one
                    entry = ServerEntry(store, servers, lambda: watching.watchers, watching.even_out)
                    await parts.start(entry.run)
                await parts.start(book.run, lambda: watching.feed.hosts if watching.feed else ())
                if scraped is not None:
                    answers: dict[str, Scraped] = {METRICS: metrics.answer}
                    if telemetry.page:
                        page = MeshPage(config.name, config.mesh, edges, lambda: watching.feed, mirror.gone)
                        answers.update(page.server.routes)
                    scrapes = ScrapeServer(answers, telemetry.hosts)
                    parts.start_soon(accept_all, scraped, "telemetry.listen", scrapes.serve, parts)
                async with trio.open_nursery() as connections:
                    async with trio.open_nursery() as accepting:
                        wide = config.listen.hostport
                        accepting.start_soon(accept_all, listener, wide, clients.serve, connections)
                        accepting.start_soon(localsocket.serve, local, serve_local, connections)
                        port = listener.getsockname()[1]
                        log.info("control server ready", name=config.name, listen=f"{config.listen.host}:{port}")
                        notices.tell("READY=1")
                        if (patience := watchdog.patience()) is not None:
                            parts.start_soon(watchdog.feed, trio.lowlevel.checkpoint, patience)
                        task_status.started(port)
                        await anext(signals)
                        accepting.cancel_scope.cancel()
                    # Who comes now is refused at once, and asks another server.
                    listener.close()
                    notices.tell("STOPPING=1")
                    log.info("control server stopping", name=config.name)
                    connections.cancel_scope.deadline = trio.current_time() + STOP_TIMEOUT
                    watching.end()
                    clients.stop()
                await notices.finish()
                parts.cancel_scope.cancel()
    log.info("control server stopped", name=config.name)


def keys_of(config: Config) -> KeyFiles:
    """The CA's files of this control server."""
    return KeyFiles(os.path.join(config.state_dir, CA_FOLDER), config.ca_keys)


@asynccontextmanager
async def open_store(config: Config) -> AsyncIterator[Store]:
    """The store that the configuration names; leaving the block closes it. Raises StartError."""
    if config.store.etcd is not None:
        from control.store.etcd import open_etcd

        access = _etcd_access(config.store.etcd)
        async with open_etcd(access) as cluster:
            yield cluster
    else:
        from control.store.sqlite import open_sqlite

        assert config.store_file is not None
        async with open_sqlite(config.store_file) as file:
            yield file


def _etcd_access(etcd: EtcdConfig) -> EtcdAccess:
    """How the configuration reaches etcd. Raises StartError if its password cannot be read."""
    from control.store.gateway import EtcdAccess

    return EtcdAccess(
        endpoints=tuple(f"http{'s' if etcd.ca else ''}://{each.hostport}" for each in etcd.endpoints),
        prefix=f"{etcd.prefix}/",
        ca=etcd.ca,
        certificate=etcd.certificate,
        key=etcd.key,
        user=etcd.user,
        password="" if etcd.password_file is None else _secret(etcd.password_file),
    )


def check_files(config: Config) -> None:
    """Read the files of certificates that a control server with this configuration would start with, as far as there
    are any yet. Raises StartError for one that is not what it is to be.
    """
    keys_of(config).roots()
    if config.store.etcd is not None:
        from control.store.gateway import tls_context

        tls_context(_etcd_access(config.store.etcd))


def _secret(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read(4096).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"{path}: {(getattr(error, 'strerror', None) or 'not text').lower()}") from None


def _listen(place: TcpAddress, key: str = "") -> socket.socket:
    """Non-blocking, as the local one is. Raises StartError, which names the `key`."""
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    try:
        listening = socket.create_server(socket_address(place.host, place.port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = "another process listens there" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
        raise StartError(f"cannot listen on {place.hostport}{key}: {reason.lower()}") from None
    listening.setblocking(False)
    return listening
