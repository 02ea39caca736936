"""Carries operations out: one netlink message or one write to sysfs or /proc/sys each. Everything here blocks."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from typing import Any

from pyroute2 import IPRoute, NetlinkError

from proxy.errors import NetError
from proxy.netdev.observe import sysctls, sysfs
from proxy.netdev.observe.mark import PROTOCOL
from proxy.netdev.observe.namespaces import run_inside
from proxy.netdev.plan.steps import (
    MAIN_TABLE,
    RULE_PRIORITY,
    CreateLink,
    DeleteLink,
    Link,
    MoveLink,
    Operation,
    SetAddress,
    SetLink,
    SetRoute,
    SetRule,
    SetSetting,
    SetVf,
    SetVfCount,
    VfLink,
)

AF_INET, AF_INET6 = 2, 10
SCOPE_LINK = 253

HINTS = {
    errno.EPERM: "needs the capability CAP_NET_ADMIN: run it as root",
    errno.EACCES: "not permitted: run it as root",
    errno.EOPNOTSUPP: "not supported by this kernel or driver",
    errno.EADDRINUSE: "the parent or another child has this MAC",
}
"""Where strerror() alone does not say what to do."""

RATE_HINT = "refused by the driver: the parent has no carrier, or the rate is over its speed"
"""What EINVAL for a function's rate means (igb, ixgbe)."""

VF_KEYS = {"mac": "mac", "vlan": "vlan", "spoof_check": "spoofchk", "trust": "trust", "max_rate": "rate"}


class Kernel:
    """The network namespace of the calling thread, and a container's if there is one."""

    def __init__(
        self,
        *,
        netlink: Callable[[], Any] = IPRoute,
        sysfs_root: str = sysfs.ROOT,
        home: int | None = None,
        container: int | None = None,
    ) -> None:
        """``home`` and ``container`` are descriptors of namespaces, for work across them; the caller's to close."""
        self._netlink = netlink
        self._sysfs = sysfs_root
        self._home = home
        self._container = container

    def run(self, operation: Operation) -> None:
        """Do it, completely or not at all. Raises NetError: one line with the operation and why not."""
        try:
            if operation.inside:
                assert self._container is not None
                run_inside(self._container, lambda: self._send(operation))
            else:
                self._send(operation)
        except NetError as error:
            raise NetError(f"{operation}: {error}") from error
        except (NetlinkError, OSError) as error:
            code = error.code if isinstance(error, NetlinkError) else error.errno or 0
            raise NetError(f"{operation}: {_reason(operation, code)}") from error

    def _send(self, operation: Operation) -> None:
        if isinstance(operation, SetVfCount):
            sysfs.set_vf_count(operation.parent, operation.count, root=self._sysfs)
            return
        if isinstance(operation, SetSetting):
            sysctls.write(operation.link, operation.key, operation.value)
            return
        with self._netlink() as socket:
            match operation:
                case CreateLink():
                    socket.link("add", **self._creation(socket, operation))
                case DeleteLink(link=link):
                    socket.link("del", index=self._index(socket, link))
                case MoveLink(link=link, inside=inside):
                    there = self._home if inside else self._container
                    socket.link("set", index=self._index(socket, link), net_ns_fd=there)
                case SetLink(link=link, key=key, value=value):
                    name = {"name": "ifname", "alias": "ifalias", "mac": "address"}.get(key, key)
                    socket.link("set", index=self._index(socket, link), **{name: value})
                case SetAddress():
                    self._address(socket, operation)
                case SetRoute():
                    self._route(socket, operation)
                case SetRule():
                    self._rule(socket, operation)
                case SetVf(parent=parent, vf=vf, key=key, value=value):
                    found: Any = int(value) if key in ("spoof_check", "trust") else value
                    if key == "max_rate":
                        found = {"min_tx_rate": 0, "max_tx_rate": value}
                    socket.link("set", index=self._index(socket, parent), vf={"vf": vf, VF_KEYS[key]: found})
                case _:
                    raise AssertionError(operation)

    def _creation(self, socket: Any, wanted: CreateLink) -> dict[str, Any]:
        message: dict[str, Any] = {
            "ifname": wanted.link,
            "kind": wanted.kind,
            "link": self._index(socket, wanted.parent),
        }
        if wanted.kind == "macvlan":
            message["macvlan_mode"] = wanted.mode
        else:
            message["vlan_id"] = wanted.vlan
        optional = {"address": wanted.mac, "mtu": wanted.mtu, "index": wanted.index}
        message |= {key: value for key, value in optional.items() if value}
        if wanted.into:
            message["net_ns_fd"] = self._container
        return message

    def _address(self, socket: Any, wanted: SetAddress) -> None:
        address, _, prefix = wanted.address.partition("/")
        socket.addr(
            "add" if wanted.present else "del",
            index=self._index(socket, wanted.link),
            family=AF_INET6 if ":" in address else AF_INET,
            address=address,
            prefixlen=int(prefix),
            **({"proto": wanted.protocol} if wanted.present and wanted.protocol else {}),
        )

    def _route(self, socket: Any, wanted: SetRoute) -> None:
        message: dict[str, Any] = {
            "dst": wanted.to,
            "family": AF_INET6 if ":" in wanted.to else AF_INET,
            "oif": self._index(socket, wanted.link),
            "proto": wanted.protocol,
        }
        if wanted.via is None:
            message["scope"] = SCOPE_LINK
        else:
            message["gateway"] = wanted.via
        if wanted.metric:
            message["priority"] = wanted.metric
        if wanted.source:
            message["prefsrc"] = wanted.source
        if wanted.table != MAIN_TABLE:
            message["table"] = wanted.table
        socket.route("add" if wanted.present else "del", **message)

    def _rule(self, socket: Any, wanted: SetRule) -> None:
        six = ":" in wanted.source
        socket.rule(
            "add" if wanted.present else "del",
            family=AF_INET6 if six else AF_INET,
            src=wanted.source,
            src_len=128 if six else 32,
            table=wanted.table,
            priority=RULE_PRIORITY,
            protocol=PROTOCOL,
        )

    def _index(self, socket: Any, link: Link) -> int:
        name = sysfs.vf_interface(link.parent, link.vf, root=self._sysfs) if isinstance(link, VfLink) else link
        with contextlib.suppress(NetlinkError):
            for found in socket.link("get", ifname=name):
                return int(found["index"])
        raise NetError(f"there is no interface {name}")


def _reason(operation: Operation, code: int) -> str:
    if code == errno.EINVAL and isinstance(operation, SetVf) and operation.key == "max_rate" and operation.value:
        return RATE_HINT
    return HINTS.get(code) or os.strerror(code).lower()
