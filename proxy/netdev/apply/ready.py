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


async def prepare(config: Config, elsewhere: Mapping[str, int]) -> None:
    """Plan, apply and wait. Returns when every interface has a carrier and its addresses can be used.

    Raises StartError: the interfaces cannot be made (nothing is changed then), or one is not ready within its
    ``up_timeout`` (what was made stays, for the next start). Cancelled, it ends after the change under way.

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
        raise StartError(f"{error} (hostlane net plan shows all)") from error
    try:
        await wait_until_ready(config.interfaces)
    except NetError as error:
        raise StartError(f"{error} (hostlane net status shows all)") from error


async def wait_until_ready(interfaces: Mapping[str, Wanted]) -> None:
    """Return when all can be used. Raises NetError when one's ``up_timeout`` is over, or an address is a duplicate."""
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
                raise NetError(
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
