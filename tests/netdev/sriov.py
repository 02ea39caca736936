"""A machine with an SR-IOV device, faked at its boundary alone: the files of sysfs and the messages of netlink.

The messages are those that pyroute2 encodes and decodes; what they do to links, addresses and routes is played here, as
Linux does it, refusals included:

- sriov_numvfs goes to 0 before it goes to another number (EBUSY), and not beyond sriov_totalvfs (ERANGE);
- an interface that is up keeps its name (EBUSY);
- a function whose MAC the parent has fixed takes no other one, and on this device (as igb) not even the same
  (EADDRNOTAVAIL);
- a rate over the speed of the link is refused (EINVAL);
- an interface that comes back from another namespace has kept name, MAC and alias and lost its addresses.
"""

from __future__ import annotations

import enum
import errno
import itertools
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink import NLMSG_DONE, NLMSG_ERROR, nlmsg, nlmsgerr
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

UP = 0x1
SPEED = 10_000
"""Mbit/s of the parent."""
NO_MAC = "00:00:00:00:00:00"


class Kind(enum.IntEnum):
    """Of messages, as <linux/rtnetlink.h> counts them."""

    NEWLINK, DELLINK, GETLINK, SETLINK = 16, 17, 18, 19
    NEWADDR, DELADDR, GETADDR = 20, 21, 22
    NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
    GETNEIGH = 30
    GETRULE = 34


class Machine:
    """``netlink`` is what `IPRoute` is elsewhere, ``root`` what /sys is, ``write`` what writes to a file of sysfs.

    Attributes:
        log: every change as it came, a line each, in the order of arrival.
    """

    def __init__(self, root: Path, total: int = 8, parent: str = "eth1") -> None:
        self.root = str(root)
        self.parent = parent
        self.log: list[str] = []
        self._indices = itertools.count(10)
        self.links: dict[int, dict[str, Any]] = {}
        self.functions: dict[int, dict[str, Any]] = {}
        self.addresses: list[tuple[int, str, int]] = []
        self.routes: list[tuple[int, str, str]] = []
        self.device = root / "class" / "net" / parent / "device"
        self.device.mkdir(parents=True)
        (self.device / "sriov_totalvfs").write_text(f"{total}\n")
        (self.device / "sriov_numvfs").write_text("0\n")
        self._add(parent, "02:00:00:00:00:10")

    def netlink(self) -> Any:
        socket = IPRoute()
        socket.asyncore.request_proxy = self
        return socket

    def dump(self) -> dict[str, Any]:
        """Everything, by names: indices are new for functions that come again."""
        links = {link["name"]: {k: v for k, v in link.items() if k != "name"} for link in self.links.values()}
        return {
            "links": links,
            "functions": {vf: {k: v for k, v in found.items() if k != "link"} for vf, found in self.functions.items()},
            "addresses": [(self.links[index]["name"], a, p) for index, a, p in self.addresses],
            "routes": [(self.links[index]["name"], to, via) for index, to, via in self.routes],
        }

    def write(self, path: Path, text: str) -> None:
        """A write to sysfs, and what the device does about it."""
        assert path == self.device / "sriov_numvfs", path
        self.log.append(f"sriov_numvfs = {text}")
        count, now, total = int(text), len(self.functions), int((self.device / "sriov_totalvfs").read_text())
        if now and count and now != count:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        if count > total:
            raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
        path.write_text(f"{count}\n")
        for vf in range(now if count == 0 else 0):
            shutil.rmtree(self.device / f"virtfn{vf}")
            index = self.functions.pop(vf)["link"]
            self.addresses = [item for item in self.addresses if item[0] != index]
            self.routes = [item for item in self.routes if item[0] != index]
            del self.links[index]
        for vf in range(count if now == 0 else 0):
            index = self._add(f"{self.parent}v{vf}", f"0a:00:00:00:00:{vf:02x}")
            self.functions[vf] = {"link": index, "mac": NO_MAC, "vlan": 0, "spoofchk": 1, "trust": 0, "rate": 0}
            (self.device / f"virtfn{vf}" / "net" / f"{self.parent}v{vf}").mkdir(parents=True)

    def _add(self, name: str, mac: str) -> int:
        index = next(self._indices)
        self.links[index] = {"name": name, "mac": mac, "mtu": 1500, "alias": "", "up": False}
        return index

    def handle(self, message: Any) -> bytes:
        """pyroute2 calls this instead of sending the message; the answer is what the kernel would send."""
        header = message["header"]
        try:
            answers = self._answer(header["type"], message)
        except OSError as error:
            return self._acknowledge(header, -(error.errno or 0))
        data = b"".join(self._encoded(answer, header, dumped=True) for answer in answers)
        if header["flags"] & 0x300:
            done = nlmsg()
            done["header"].update(type=NLMSG_DONE, flags=0x2)
            return data + self._encoded(done, header)
        return data + self._acknowledge(header, 0)

    def _answer(self, kind: int, sent: Any) -> list[Any]:
        # What was encoded is read back from its bytes, as the kernel would.
        message = type(sent)(sent.data)
        message.decode()
        match kind:
            case Kind.GETLINK:
                name = message.get_attr("IFLA_IFNAME")
                found = [i for i, link in self.links.items() if name in (None, link["name"])]
                if not found:
                    raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
                return [self._link(index) for index in found]
            case Kind.GETADDR:
                return [self._address(*item) for item in self.addresses]
            case Kind.GETROUTE:
                return [self._route(*item) for item in self.routes]
            case Kind.GETNEIGH | Kind.GETRULE:
                return []
            case Kind.NEWLINK | Kind.SETLINK:
                self._set(message)
            case Kind.NEWADDR | Kind.DELADDR:
                self._set_address(kind == Kind.NEWADDR, message)
            case Kind.NEWROUTE | Kind.DELROUTE:
                self._set_route(kind == Kind.NEWROUTE, message)
            case _:
                raise AssertionError(message)
        return []

    def _set(self, message: Any) -> None:
        link = self.links[message["index"]]
        who = link["name"]
        for name, value in message["attrs"]:
            match name:
                case "IFLA_IFNAME":
                    self._rename(message["index"], value)
                case "IFLA_IFALIAS":
                    link["alias"] = value
                case "IFLA_MTU":
                    link["mtu"] = value
                case "IFLA_ADDRESS":
                    if any(vf["link"] == message["index"] and vf["mac"] != NO_MAC for vf in self.functions.values()):
                        raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
                    link["mac"] = value
                case "IFLA_VFINFO_LIST":
                    self._set_function(value)
                    continue
                case _:
                    raise AssertionError(name)
            self.log.append(f"{who}: {name} = {value}")
        if message["change"] & UP:
            link["up"] = bool(message["flags"] & UP)
            self.log.append(f"{who}: {'up' if link['up'] else 'down'}")

    def _rename(self, index: int, name: str) -> None:
        link = self.links[index]
        if link["up"]:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        if any(other["name"] == name for other in self.links.values()):
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        for vf, function in self.functions.items():
            if function["link"] == index:
                folder = self.device / f"virtfn{vf}" / "net"
                (folder / link["name"]).rename(folder / name)
        link["name"] = name

    def _set_function(self, value: Any) -> None:
        for info in value.get_attrs("IFLA_VF_INFO"):
            assert len(info["attrs"]) == 1, "one setting a message: the kernel stops half-way through several"
            for name, setting in info["attrs"]:
                function = self.functions[setting["vf"]]
                if name == "IFLA_VF_RATE" and setting["max_tx_rate"] > SPEED:
                    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
                key = {"IFLA_VF_RATE": "max_tx_rate"}.get(name, name.removeprefix("IFLA_VF_").lower())
                function["rate" if name == "IFLA_VF_RATE" else key] = setting[key]
                self.log.append(f"vf {setting['vf']}: {name} = {setting[key]}")

    def _set_address(self, new: bool, message: Any) -> None:
        index = message["index"]
        item = (index, message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"), message["prefixlen"])
        self.addresses.append(item) if new else self.addresses.remove(item)
        self.log.append(f"{self.links[index]['name']}: {'add' if new else 'delete'} {item[1]}/{item[2]}")

    def _set_route(self, new: bool, message: Any) -> None:
        index, via = message.get_attr("RTA_OIF"), message.get_attr("RTA_GATEWAY")
        item = (index, f"{message.get_attr('RTA_DST')}/{message['dst_len']}", via)
        self.routes.append(item) if new else self.routes.remove(item)
        self.log.append(f"{self.links[index]['name']}: {'add' if new else 'delete'} route {item[1]} via {via}")

    def _link(self, index: int) -> Any:
        link, message = self.links[index], ifinfmsg()
        message["header"].update(type=Kind.NEWLINK)
        message.update(index=index, flags=UP * link["up"])
        message["attrs"] = [
            ("IFLA_IFNAME", link["name"]), ("IFLA_ADDRESS", link["mac"]), ("IFLA_MTU", link["mtu"]),
            ("IFLA_CARRIER", int(link["up"])), ("IFLA_OPERSTATE", "UP" if link["up"] else "DOWN"),
        ]  # fmt: skip
        if link["alias"]:
            message["attrs"].append(("IFLA_IFALIAS", link["alias"]))
        if link["name"] == self.parent and self.functions:
            infos = [("IFLA_VF_INFO", {"attrs": self._function(vf)}) for vf in self.functions]
            message["attrs"].append(("IFLA_VFINFO_LIST", {"attrs": infos}))
        return message

    def _function(self, vf: int) -> list[Any]:
        found = self.functions[vf]
        return [
            ("IFLA_VF_MAC", {"vf": vf, "mac": found["mac"]}),
            ("IFLA_VF_VLAN", {"vf": vf, "vlan": found["vlan"], "qos": 0}),
            ("IFLA_VF_RATE", {"vf": vf, "min_tx_rate": 0, "max_tx_rate": found["rate"]}),
            ("IFLA_VF_SPOOFCHK", {"vf": vf, "spoofchk": found["spoofchk"]}),
            ("IFLA_VF_TRUST", {"vf": vf, "trust": found["trust"]}),
        ]

    def _address(self, index: int, address: str, prefix: int) -> Any:
        message = ifaddrmsg()
        message["header"].update(type=Kind.NEWADDR)
        message.update(index=index, family=2, prefixlen=prefix)
        message["attrs"] = [("IFA_ADDRESS", address), ("IFA_LOCAL", address)]
        return message

    def _route(self, index: int, to: str, via: str) -> Any:
        address, _, length = to.partition("/")
        message = rtmsg()
        message["header"].update(type=Kind.NEWROUTE)
        message.update(family=2, dst_len=int(length), table=254, proto=72, type=1)
        message["attrs"] = [("RTA_DST", address), ("RTA_OIF", index), ("RTA_GATEWAY", via)]
        return message

    @staticmethod
    def _encoded(message: Any, request: Any, dumped: bool = False) -> bytes:
        message["header"].update(sequence_number=request["sequence_number"], pid=request["pid"])
        if dumped:
            message["header"]["flags"] = 0x2 if request["flags"] & 0x300 else 0
        message.encode()
        return bytes(message.data)

    def _acknowledge(self, request: Any, code: int) -> bytes:
        message = nlmsgerr()
        message["header"].update(type=NLMSG_ERROR, flags=0)
        message["error"] = code
        # After the code stands the header of what is answered; it is read for errors alone.
        return self._encoded(message, request) if code == 0 else self._refusal(message, request)

    def _refusal(self, message: Any, request: Any) -> bytes:
        data = bytearray(self._encoded(message, request)) + bytes(16)
        data[0:4] = len(data).to_bytes(4, sys.byteorder)
        return bytes(data)
