"""The largest packet that gets to each peer and back unfragmented. A black hole swallows larger ones without a word."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from proxy.check.report import Finding, Line, Passed, Unchecked


class MtuProbe(Struct, frozen=True, kw_only=True):
    """What echo requests with DF set have found about one peer; sizes are bytes of a whole IP packet."""

    peer: str
    address: str
    interface: str
    mtu: int
    """Of the interface that they left through."""
    largest: int
    """The largest that was answered."""
    told: int | None = None
    """The size that a router (``teller``) said it can pass on; None: none said so."""
    teller: str | None = None


class MtuFacts(Struct, frozen=True, kw_only=True):
    """The measured path MTUs: one entry for each peer that there is a route to."""

    measured: tuple[MtuProbe | Unchecked, ...] = ()


def judge(facts: MtuFacts) -> Iterator[Line]:
    """All lines about path MTU."""
    for item in facts.measured:
        if isinstance(item, Unchecked):
            yield item
        elif item.largest >= item.mtu:
            yield Passed(f"{item.address} ({item.peer}): {item.mtu} bytes pass, as {item.interface} allows")
        elif item.told is not None:
            yield _smaller(item)
        else:
            yield _black_hole(item)
    if not facts.measured:
        yield Unchecked("path MTU", "there is no peer with a route to it")


def _black_hole(item: MtuProbe) -> Finding:
    return Finding(
        name="mtu-black-hole",
        level="wrong",
        where=f"peer {item.peer}",
        read=f"the MTU of {item.interface} is {item.mtu}; packets to {item.address} above {item.largest} bytes vanish, "
        "and no router says so",
        cost="small messages pass, large ones hang until the connection times out",
        measured=f"{item.largest} bytes were answered, {item.largest + 1} were not, three times",
        mend=f"ip link set {item.interface} mtu {item.largest} here, or the greater MTU on the whole way; where a "
        "firewall drops ICMP type 3 code 4 (IPv6: type 2), let it pass",
    )


def _smaller(item: MtuProbe) -> Finding:
    return Finding(
        name="smaller-path-mtu",
        level="note",
        where=f"peer {item.peer}",
        read=f"the MTU of {item.interface} is {item.mtu}; {item.teller or 'a router'} passes on {item.told} bytes, and "
        "says so",
        cost="the first large message of each connection is sent twice, and again whenever the kernel forgets (10 min)",
        measured=f"{item.largest} bytes were answered",
        mend=f"ip link set {item.interface} mtu {item.largest}, or the greater MTU on the whole way",
    )
