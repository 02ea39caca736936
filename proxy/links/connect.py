"""The TCP connection of a dial, through the interface that links go through."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from typing import Any

import trio

from control.base.reading.addresses import TcpAddress
from proxy.errors import HandshakeError
from proxy.links.device import LinkDevice, LinkWay
from proxy.links.rtnetlink import has_route, is_local

HEAD_START = 0.25
"""Seconds until the next address of a name is tried beside the last one (RFC 8305, section 5)."""
_IP_BIND_ADDRESS_NO_PORT = 24  # <linux/in.h>


class BoundConnectError(OSError):
    """A connection through the links' own interface has failed: `errno` says why, the text also through which one."""


async def connect(address: TcpAddress, device: LinkDevice) -> trio.SocketStream:
    """Connect to a peer. Raises OSError, also as a group, and HandshakeError if the links' own interface is gone.
    Cancelled or failed, it leaves nothing open.
    """
    source, way = device.source, device.way()
    if way.interface is None:
        return await trio.open_tcp_stream(address.host, address.port, local_address=source)
    infos = await trio.socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    # Another IP version than that of this host's own address cannot be reached from it.
    targets = [info for info in infos if source is None or (info[0] == socket.AF_INET6) == (":" in source)]
    if not targets:
        raise OSError(f"{address.host} has no address of the IP version of {source}")
    made: list[trio.SocketStream] = []
    errors: list[OSError | HandshakeError] = []

    async def attempt(info: Any, over: trio.Event) -> None:
        try:
            made.append(await _attempt(info, way, device))
            nursery.cancel_scope.cancel()
        except (OSError, HandshakeError) as error:
            errors.append(error)
        finally:
            over.set()

    try:
        async with trio.open_nursery() as nursery:
            for info in targets:
                over = trio.Event()
                nursery.start_soon(attempt, info, over)
                with trio.move_on_after(HEAD_START):
                    await over.wait()
    except BaseException:
        for stream in made:
            stream.socket.close()
        raise
    for late in made[1:]:
        late.socket.close()
    if not made:
        if len(errors) == 1:
            raise errors[0]
        raise OSError(f"no address of {address.host} accepts") from ExceptionGroup("", errors)  # as trio does
    return made[0]


async def _attempt(info: Any, way: LinkWay, device: LinkDevice) -> trio.SocketStream:
    family, kind, protocol, _, target = info
    sock = trio.socket.socket(family, kind, protocol)
    try:
        # This host's own addresses are reached through lo.
        bound = not is_local(str(target[0])) and device.bind(sock, way)
        if device.source is not None:
            # The kernel chooses the port at connect(): then only the four numbers together have to be free.
            sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            await sock.bind((device.source, 0))
        try:
            await sock.connect(target)
        except OSError as error:
            if not bound:
                raise
            raise BoundConnectError(error.errno, _through(error, way, str(target[0]), device.source)) from None
        return trio.SocketStream(sock)
    except BaseException:
        sock.close()
        raise


def _through(error: OSError, way: LinkWay, address: str, source: str | None) -> str:
    """The error of a socket that is bound to an interface, which is part of why."""
    assert way.interface is not None
    with suppress(OSError, ValueError):
        if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH) and not has_route(
            address, source, way.interface.index
        ):
            return (
                f"no route to {address} through {way.device}, which links are bound to: "
                f"ip route add {address} dev {way.device}, or links.interface: any"
            )
    # Not its text, in which trio repeats the address.
    return f"{os.strerror(error.errno) if error.errno else error} (through {way.device})"
