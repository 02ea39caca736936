"""Interfaces at the proxy's start: made as configured, then waited for until the proxy can listen on them."""

from __future__ import annotations

import socket
from collections.abc import Mapping

import structlog
import trio

from proxy.config.interfaces import InterfaceConfig as Wanted
from proxy.config.schema import Config
from proxy.errors import NetError, StartError
from proxy.netdev.apply import manage
from proxy.netdev.observe.observe import snapshot
from proxy.netdev.observe.records import NetSnapshot
from proxy.netdev.plan.status import duplicate, not_ready

log = structlog.get_logger()

LINK_AND_ADDRESS_EVENTS = 0x1 | 0x10 | 0x100
"""RTMGRP_LINK, RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR of <linux/rtnetlink.h>."""


class NotReady(NetError):
    """An interface is not as it should be in time."""


async def prepare(config: Config, elsewhere: Mapping[str, int]) -> str | None:
    """Plan, apply and wait. Returns None when every interface is made and has a carrier and its addresses, or
    ``up_timeout`` is over (what is missing has been said then); why none was made, if what they stand on is not there
    yet: `keep.keep` makes them later.

    Raises StartError: the interfaces cannot be made (nothing is changed then), or another machine has an address.
    Cancelled, it ends after the change under way.

    Args:
        elsewhere: as `manage.planned` takes it.
    """
    try:
        done = await trio.to_thread.run_sync(manage.bring_up, config, elsewhere)
        for step in done.steps:
            log.info("network changed", change=str(step.do))
        for note in done.notes:
            log.warning("network", note=note)
    except NetError as error:
        if not (absent := await trio.to_thread.run_sync(manage.absent, config)):
            raise StartError(f"{error} (hostlane net plan shows all)") from error
        for name in absent:
            log.warning("waiting for an interface", interface=name, reason=str(error))
        return str(error)
    try:
        await wait_until_ready(config.interfaces)
    except NotReady as error:
        log.warning("going on without an interface that is not ready", error=str(error))
    except NetError as error:
        raise StartError(f"{error} (hostlane net status shows all)") from error
    return None


async def wait_until_ready(interfaces: Mapping[str, Wanted]) -> None:
    """Return when all can be used. Raises NotReady when one's ``up_timeout`` is over, NetError for an address that is a
    duplicate.
    """
    start = trio.current_time()
    said: set[str] = set()
    # The kernel tells of changes through this socket; it is open before the first look, so that none is missed.
    with trio.socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as events:
        await events.bind((0, LINK_AND_ADDRESS_EVENTS))
        while missing := _missing(interfaces, await trio.to_thread.run_sync(snapshot)):
            for name, why in missing.items():
                if why not in said:
                    said.add(why)
                    log.warning("waiting for an interface", interface=name, reason=why)
            name = min(missing, key=lambda name: interfaces[name].up_timeout)
            with trio.move_on_at(start + interfaces[name].up_timeout) as waiting:
                await _next_event(events)
            if waiting.cancelled_caught:
                raise NotReady(
                    f"{missing[name]}; waited {interfaces[name].up_timeout:g}s (interfaces.{name}.up_timeout)"
                )


def _missing(interfaces: Mapping[str, Wanted], seen: NetSnapshot) -> dict[str, str]:
    for name in interfaces:
        if why := duplicate(name, seen):
            raise NetError(why)
    found = {name: not_ready(name, seen) for name in interfaces}
    return {name: why for name, why in found.items() if why is not None}


async def _next_event(events: trio.socket.SocketType) -> None:
    try:
        await events.recv(1 << 16)
    except OSError:
        # ENOBUFS: more happened than the socket could hold, so something did.
        await trio.lowlevel.checkpoint()
