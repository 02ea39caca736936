"""The live network, read through netlink into plain records: nothing is changed and no privilege is needed.

Everything here blocks, and reads the network namespace that the calling thread is in: the proxy calls it with
``trio.to_thread.run_sync``. Interfaces are named by their index, because names change and are given again.

Raises NetError when the kernel does not answer.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterator
from typing import Any

from pyroute2 import IPRoute, NetlinkError

from proxy.errors import NetError
from proxy.netdev.observe.records import (
    NO_MAC,
    Address,
    KernelRoute,
    Neighbour,
    NetInterface,
    NetSnapshot,
    RouteAnswer,
    SourceRule,
    VirtualFunction,
)

__all__ = [
    "NO_MAC",
    "Address",
    "KernelRoute",
    "Neighbour",
    "NetInterface",
    "NetSnapshot",
    "RouteAnswer",
    "SourceRule",
    "VirtualFunction",
    "route_to",
    "snapshot",
]

IFF_UP = 0x1
IFA_F_TENTATIVE, IFA_F_DADFAILED = 0x40, 0x08
RTEXT_FILTER_VF = 0x1  # <linux/rtnetlink.h>: list the virtual functions too
AF_BRIDGE, AF_INET6 = 7, 10
NEIGHBOUR_STATES = {
    0x01: "incomplete", 0x02: "reachable", 0x04: "stale", 0x08: "delay", 0x10: "probe", 0x20: "failed",
    0x40: "noarp", 0x80: "permanent",
}  # fmt: skip


def snapshot() -> NetSnapshot:
    """What this thread's namespace has now."""
    with _asked("network interfaces") as socket:
        unicast = _unicast(socket)
        return NetSnapshot(
            interfaces=tuple(_interface(found, unicast) for found in socket.get_links(ext_mask=RTEXT_FILTER_VF)),
            addresses=tuple(_address(found) for found in socket.get_addr()),
            routes=tuple(_route(found) for found in socket.get_routes()),
            rules=tuple(rule for found in socket.get_rules() if (rule := _rule(found)) is not None),
            neighbours=tuple(_neighbour(found) for found in socket.get_neighbours()),
        )


def route_to(address: str, *, source: str | None = None, interface: int | None = None) -> RouteAnswer | None:
    """The way to an IP address; None when there is none. Raises ValueError for what is no IP address.

    Args:
        source: the address that the packet comes from; interface: the one that its socket is bound to.
    """
    bound = {"src": source, "oif": interface}
    text = str(ipaddress.ip_address(address))
    with _asked(f"the route to {text}") as socket:
        try:
            found = next(iter(socket.route("get", dst=text, **{key: value for key, value in bound.items() if value})))
        except NetlinkError:
            return None
        return RouteAnswer(
            interface=found.get_attr("RTA_OIF"),
            via=_gateway(found),
            source=found.get_attr("RTA_PREFSRC") or source,  # not said where it was given
            local=found["type"] == 2,
        )


@contextlib.contextmanager
def _asked(what: str) -> Iterator[Any]:
    try:
        with IPRoute() as socket:
            yield socket
    except (NetlinkError, OSError) as error:
        raise NetError(f"cannot read {what}: {error.args[-1]}") from error


def _unicast(socket: Any) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for entry in socket.get_neighbours(family=AF_BRIDGE):
        mac = entry.get_attr("NDA_LLADDR")
        # The lowest bit of the first byte marks a group. A port of a bridge also lists what the bridge has learnt.
        if mac and not int(mac[:2], 16) & 1 and entry.get_attr("NDA_MASTER") is None:
            found.setdefault(entry["ifindex"], []).append(mac)
    return found


def _interface(message: Any, unicast: dict[int, list[str]]) -> NetInterface:
    info = message.get_attr("IFLA_LINKINFO")
    kind = (info and info.get_attr("IFLA_INFO_KIND")) or ""
    data = info and info.get_attr("IFLA_INFO_DATA")
    listed = message.get_attr("IFLA_VFINFO_LIST")
    return NetInterface(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        kind=kind,
        mac=message.get_attr("IFLA_ADDRESS") or "",
        mtu=message.get_attr("IFLA_MTU") or 0,
        up=bool(message["flags"] & IFF_UP),
        carrier=bool(message.get_attr("IFLA_CARRIER")),
        operstate=(message.get_attr("IFLA_OPERSTATE") or "unknown").lower(),
        alias=message.get_attr("IFLA_IFALIAS") or "",
        parent=message.get_attr("IFLA_LINK"),
        parent_netns=message.get_attr("IFLA_LINK_NETNSID"),
        master=message.get_attr("IFLA_MASTER"),
        macvlan_mode=data.get_attr("IFLA_MACVLAN_MODE") if data and kind == "macvlan" else None,
        vlan_id=data.get_attr("IFLA_VLAN_ID") if data and kind == "vlan" else None,
        vfs=tuple(_vf(found) for found in (listed.get_attrs("IFLA_VF_INFO") if listed else ())),
        unicast=tuple(unicast.get(message["index"], ())),
    )


def _vf(message: Any) -> VirtualFunction:
    mac, vlan = message.get_attr("IFLA_VF_MAC"), message.get_attr("IFLA_VF_VLAN")
    rate = message.get_attr("IFLA_VF_RATE")
    return VirtualFunction(
        index=mac["vf"],
        mac=mac["mac"],
        vlan=vlan["vlan"] if vlan else 0,
        spoof_check=_said(message.get_attr("IFLA_VF_SPOOFCHK"), "spoofchk"),
        trust=_said(message.get_attr("IFLA_VF_TRUST"), "trust"),
        min_rate=rate["min_tx_rate"] if rate else 0,
        max_rate=rate["max_tx_rate"] if rate else 0,
    )


def _said(setting: Any, key: str) -> bool | None:
    """The kernel's ~0 stands for "the driver does not say"."""
    return bool(setting[key]) if setting and setting[key] in (0, 1) else None


def _address(message: Any) -> Address:
    flags = message.get_attr("IFA_FLAGS") or message["flags"]
    return Address(
        interface=message["index"],
        # On a point-to-point interface IFA_ADDRESS is the other end.
        address=message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"),
        prefix=message["prefixlen"],
        scope=message["scope"],
        protocol=message.get_attr("IFA_PROTO") or 0,
        tentative=bool(flags & IFA_F_TENTATIVE),
        duplicate=bool(flags & IFA_F_DADFAILED),
    )


def _route(message: Any) -> KernelRoute:
    anything = "::" if message["family"] == 10 else "0.0.0.0"
    return KernelRoute(
        to=f"{message.get_attr('RTA_DST') or anything}/{message['dst_len']}",
        interface=message.get_attr("RTA_OIF"),
        via=_gateway(message),
        source=message.get_attr("RTA_PREFSRC"),
        metric=message.get_attr("RTA_PRIORITY") or 0,
        table=message.get_attr("RTA_TABLE") or message["table"],
        protocol=message["proto"],
        kind=message["type"],
    )


def _rule(message: Any) -> SourceRule | None:
    """None for a rule about more, or less, than one source address."""
    source, table = message.get_attr("FRA_SRC"), message.get_attr("FRA_TABLE") or message["table"]
    whole = message["src_len"] == (128 if message["family"] == AF_INET6 else 32)
    more = any(message.get_attr(key) is not None for key in ("FRA_DST", "FRA_IIFNAME", "FRA_OIFNAME", "FRA_FWMARK"))
    if source is None or not table or not whole or more:
        return None
    return SourceRule(source=source, table=table, protocol=message.get_attr("FRA_PROTOCOL") or 0)


def _gateway(message: Any) -> str | None:
    """The next router; RTA_VIA is one of the other IP version."""
    via = message.get_attr("RTA_VIA")
    return message.get_attr("RTA_GATEWAY") or (via["addr"] if via else None)


def _neighbour(message: Any) -> Neighbour:
    return Neighbour(
        interface=message["ifindex"],
        address=message.get_attr("NDA_DST") or "",
        mac=message.get_attr("NDA_LLADDR") or "",
        state=NEIGHBOUR_STATES.get(message["state"], "none"),
    )
