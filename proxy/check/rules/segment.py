"""Addresses that two machines on the segment claim: by ARP, and by the neighbour table for what was used before."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from proxy.check.report import Finding, Line, Passed, Unchecked


class AddressClaim(Struct, frozen=True, kw_only=True):
    """Somebody on the segment says that ``address`` is at ``mac``."""

    interface: str
    address: str
    mac: str


class SegmentFacts(Struct, frozen=True, kw_only=True):
    """This host's addresses, those of its peers, and who on the segments claims them.

    ``own``: its IPv4 addresses that were asked about; ``own_macs``: MAC of each interface; ``peers``: names of peers by
    address; ``asked``: the interfaces on which there were ARP probes; ``sought``: addresses of peers that were asked
    for on the segment of an interface, with that interface.
    """

    own: tuple[str, ...] = ()
    own_macs: dict[str, str] = {}
    peers: dict[str, str] = {}
    asked: tuple[str, ...] | Unchecked = ()
    sought: dict[str, str] = {}
    answers: tuple[AddressClaim, ...] = ()


def judge(facts: SegmentFacts) -> Iterator[Line]:
    """All lines about addresses that exist twice."""
    if isinstance(facts.asked, Unchecked):
        yield facts.asked
    ours = {mac: name for name, mac in facts.own_macs.items() if mac}
    strangers = [answer for answer in facts.answers if answer.mac not in ours]
    findings = [
        *_own_address(facts, strangers),
        *_own_mac(facts, ours),
        *_peers_address(facts, strangers),
        *_peers_mac(facts, strangers),
    ]
    yield from _silent(facts)
    yield from findings
    if not findings and isinstance(facts.asked, tuple):
        for interface in facts.asked:
            yield Passed(f"nobody else on {interface} has an address of this host or of another peer")


def _own_address(facts: SegmentFacts, strangers: list[AddressClaim]) -> Iterator[Finding]:
    for answer in _first(answer for answer in strangers if answer.address in facts.own):
        yield Finding(
            name="duplicate-ip",
            level="wrong",
            where=f"{answer.address} on {answer.interface}",
            read=f"another machine, at {answer.mac}, answers for {answer.address}, which is this host's",
            cost="frames for this host go to whichever answered last: links stall, break, or reach a stranger",
            mend=f"find {answer.mac} in the switch's MAC table; give one of the two another address: "
            f"ip address del {answer.address}/PREFIX dev {answer.interface}",
        )


def _own_mac(facts: SegmentFacts, ours: dict[str, str]) -> Iterator[Finding]:
    for answer in _first(answer for answer in facts.answers if answer.mac in ours and answer.address not in facts.own):
        name = ours[answer.mac]
        yield Finding(
            name="duplicate-mac",
            level="wrong",
            where=f"{answer.mac} on {answer.interface}",
            read=f"{_who(facts, answer.address)} is at {answer.mac}, the MAC of this host's {name}",
            cost="the switch moves the MAC from port to port, and each of the two gets a part of the other's frames",
            mend=f"ip link set {name} down; ip link set {name} address OTHER-MAC; ip link set {name} up",
        )


def _peers_address(facts: SegmentFacts, strangers: list[AddressClaim]) -> Iterator[Finding]:
    macs: dict[str, list[str]] = {}
    for answer in strangers:
        known = macs.setdefault(answer.address, [])
        if answer.mac not in known:
            known.append(answer.mac)
    for address, found in macs.items():
        if address in facts.peers and len(found) > 1:
            yield Finding(
                name="duplicate-peer-ip",
                level="wrong",
                where=f"peer {facts.peers[address]}",
                read=f"{' and '.join(found)} both answer for {address}",
                cost="chance decides which of them a link reaches; two interfaces of one machine are as bad as two "
                "machines when only one of them is meant",
                mend="give one of the two another address; or, on a machine with two interfaces in the segment: "
                "sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2",
            )


def _peers_mac(facts: SegmentFacts, strangers: list[AddressClaim]) -> Iterator[Finding]:
    addresses: dict[str, list[str]] = {}
    for answer in strangers:
        known = addresses.setdefault(answer.mac, [])
        if answer.address in facts.peers and answer.address not in known:
            known.append(answer.address)
    for mac, found in addresses.items():
        if len(found) > 1:
            yield Finding(
                name="duplicate-peer-mac",
                level="wrong",
                where=", ".join(f"peer {facts.peers[address]}" for address in found),
                read=f"{' and '.join(found)} are all at {mac}",
                cost="if these are two machines, each gets a part of the other's frames; if it is one, two peers are "
                "one host",
                mend="on one of them: ip link set INTERFACE address OTHER-MAC",
            )


def _silent(facts: SegmentFacts) -> Iterator[Finding]:
    """A machine that is up answers ARP whatever its firewall says about IP."""
    heard = {answer.address for answer in facts.answers}
    for address, interface in facts.sought.items() if isinstance(facts.asked, tuple) else ():
        if address not in heard:
            yield Finding(
                name="silent-peer",
                level="wrong",
                where=f"peer {facts.peers[address]}",
                read=f"nobody on the segment of {interface} answers ARP for {address}",
                cost="no link to this peer can be made",
                mend="on the peer: hostlane net status --config FILE (is the machine on, its interface up, its cable "
                "in, this address its own?); between the two: one segment, with the same VLAN",
            )


def _first(answers: Iterator[AddressClaim]) -> Iterator[AddressClaim]:
    """One for each address and MAC, however often it was said."""
    said: set[tuple[str, str]] = set()
    for answer in answers:
        if (answer.address, answer.mac) not in said:
            said.add((answer.address, answer.mac))
            yield answer


def _who(facts: SegmentFacts, address: str) -> str:
    return f"peer {facts.peers[address]}, {address}," if address in facts.peers else address
