"""The changes that a plan is made of. Each is one netlink message or one write to sysfs: it happens or it does not.

Plain data (sans-IO): `str()` of an operation is the line that ``hostlane net plan`` prints. Interfaces are named, not
numbered, because a plan also speaks of those that its earlier steps will make.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from proxy.netdev.observe.mark import PROTOCOL

MAIN_TABLE = 254
RULE_PRIORITY = 7600
"""Of Hostlane's rules: before the main table's (32766), and what ``ip rule add`` puts right before that one. It is the
number of the links' port."""

Key = Literal["name", "alias", "mac", "mtu", "state"]
SettingKey = Literal["arp_ignore", "arp_announce", "rp_filter"]
VfKey = Literal["mac", "vlan", "spoof_check", "trust", "max_rate"]


class VfLink(Struct, frozen=True):
    """The interface of a virtual function, by its place: its name is known only once its driver has bound."""

    parent: str
    vf: int

    def __str__(self) -> str:
        return f"{self.parent} vf {self.vf}"


Link = str | VfLink


class Operation(Struct, frozen=True, kw_only=True):
    """What all operations have.

    ``inside``: done in the container's network namespace instead of the host's.
    """

    inside: bool = False


class CreateLink(Operation, frozen=True, kw_only=True):
    """Make a macvlan or VLAN interface, down. ``into``: in the container's namespace, on a parent in the host's."""

    link: str
    kind: Literal["macvlan", "vlan"]
    parent: str
    mode: str = ""
    vlan: int = 0
    mac: str = ""
    mtu: int = 0
    index: int = 0
    """0: the kernel chooses."""
    into: bool = False

    def __str__(self) -> str:
        what = f"mode {self.mode}" if self.kind == "macvlan" else f"id {self.vlan}"
        rest = [f"mac {self.mac}"] * bool(self.mac) + [f"mtu {self.mtu}"] * bool(self.mtu)
        rest += ["in the container"] * self.into
        return f"{self.link}: create {self.kind} on {self.parent}, {', '.join([what, *rest])}"


class DeleteLink(Operation, frozen=True, kw_only=True):
    link: str

    def __str__(self) -> str:
        return f"{self.link}: delete"


class MoveLink(Operation, frozen=True, kw_only=True):
    """Move an interface to the other namespace; the kernel takes it down and drops its addresses."""

    link: str

    def __str__(self) -> str:
        return f"{self.link}: move {'back to the host' if self.inside else 'into the container'}"


class SetLink(Operation, frozen=True, kw_only=True):
    """Set one property of an interface."""

    link: Link
    key: Key
    value: str | int

    def __str__(self) -> str:
        match self.key:
            case "state":
                return f"{self.link}: set {self.value}"
            case "name":
                return f"{self.link}: rename to {self.value}"
            case "alias":
                return f"{self.link}: " + (f"mark as {self.value}" if self.value else "remove the mark")
            case _:
                return f"{self.link}: set {self.key} {self.value}"


class SetAddress(Operation, frozen=True, kw_only=True):
    """Add or delete an address."""

    link: str
    address: str
    present: bool = True
    protocol: int = PROTOCOL

    def __str__(self) -> str:
        return f"{self.link}: {'add' if self.present else 'delete'} address {self.address}"


class SetRoute(Operation, frozen=True, kw_only=True):
    """Add or delete a route."""

    link: str
    to: str
    via: str | None = None
    source: str | None = None
    metric: int = 0
    table: int = MAIN_TABLE
    present: bool = True
    protocol: int = PROTOCOL

    def __str__(self) -> str:
        way = (f" via {self.via}" if self.via else "") + (f" metric {self.metric}" if self.metric else "")
        way += f" in table {self.table}" if self.table != MAIN_TABLE else ""
        return f"{self.link}: {'add' if self.present else 'delete'} route {self.to}{way}"


class SetRule(Operation, frozen=True, kw_only=True):
    """Add or delete the rule that sends what comes from an address to a routing table. ``link``: the interface with the
    address, for the text.
    """

    link: str
    source: str
    table: int
    present: bool = True

    def __str__(self) -> str:
        return f"{self.link}: {'add' if self.present else 'delete'} rule from {self.source} lookup {self.table}"


class SetSetting(Operation, frozen=True, kw_only=True):
    """Write one of the interface's settings for IPv4, in /proc/sys."""

    link: str
    key: SettingKey
    value: int

    def __str__(self) -> str:
        return f"{self.link}: set {self.key} {self.value}"


class SetVf(Operation, frozen=True, kw_only=True):
    """Set one property of a virtual function on its parent."""

    parent: str
    vf: int
    key: VfKey
    value: str | int | bool

    def __str__(self) -> str:
        value = {True: "on", False: "off"}[self.value] if isinstance(self.value, bool) else self.value
        unit = " Mbit/s" if self.key == "max_rate" and value else ""
        return f"{self.parent} vf {self.vf}: set {self.key.replace('_', ' ')} {value}{unit}"


class SetVfCount(Operation, frozen=True, kw_only=True):
    """Write sriov_numvfs; the kernel wants 0 between two other numbers."""

    parent: str
    count: int

    def __str__(self) -> str:
        return f"{self.parent}: set the number of virtual functions to {self.count}"


class Step(Struct, frozen=True):
    """An operation and, in the order in which they are done, those that take it back."""

    do: Operation
    undo: tuple[Operation, ...] = ()


class NetPlan(Struct, frozen=True, kw_only=True):
    """What would be done. With problems nothing is."""

    steps: tuple[Step, ...] = ()
    problems: tuple[str, ...] = ()
    """Why it cannot be done, each a line."""
    notes: tuple[str, ...] = ()
    """What it leaves as it is, and why."""
