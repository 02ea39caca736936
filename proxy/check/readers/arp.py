"""ARP over a packet socket (RFC 826, RFC 5227): who says that an address is his. Only root may ask so."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import time
from collections.abc import Iterable
from typing import NamedTuple

from proxy.check.readers import files
from proxy.check.report import Unchecked

ETH_P_ARP = 0x0806
_PACKET = struct.Struct("!HHBBH6s4s6s4s")
_ETHERNET_IPV4 = (1, 0x0800, 6, 4)
_REQUEST = 1
BROADCAST = b"\xff" * 6
PROBES = 3
"""As often as RFC 5227 probes (PROBE_NUM)."""
INTERVAL_S, LISTEN_S = 0.1, 0.3
"""Seconds between two rounds, and after the last. RFC 5227 takes one to two each time, for machines that come up at the
same moment; these are up, and answer within a millisecond."""


class ArpRequest(NamedTuple):
    """The question which MAC has ``target``, to be broadcast on ``interface``. ``sender``: an address of this host, or
    0.0.0.0 for a probe of an address that is this host's own.
    """

    interface: str
    mac: str
    sender: str
    target: str


class ArpSighting(NamedTuple):
    """The machine with this MAC has used ``address`` as its own, in an ARP answer or request."""

    interface: str
    address: str
    mac: str


def ask(questions: Iterable[ArpRequest]) -> set[ArpSighting] | Unchecked:
    """Broadcast all questions, `PROBES` times, and collect who has the addresses. Takes half a second."""
    asked = tuple(questions)
    targets = {question.target for question in asked}
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        sockets = {}
        try:
            for interface in {question.interface for question in asked}:
                # With ETH_P_ARP the kernel shows what comes in, not what we send ourselves.
                sock = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ARP)))
                sock.bind((interface, ETH_P_ARP))
                sock.setblocking(False)
                sockets[interface] = sock
                selector.register(sock, selectors.EVENT_READ, interface)
        except OSError as error:
            return files.unseen("addresses that exist twice, by ARP probes", error)
        heard: set[ArpSighting] = set()
        for number in range(PROBES):
            for question in asked:
                with contextlib.suppress(OSError):
                    to = (question.interface, ETH_P_ARP, 0, 0, BROADCAST)
                    sockets[question.interface].sendto(packet(question), to)
            heard |= _listen(selector, targets, INTERVAL_S if number < PROBES - 1 else LISTEN_S)
        return heard


def packet(question: ArpRequest) -> bytes:
    """An ARP request."""
    mac = bytes.fromhex(question.mac.replace(":", ""))
    sender, target = socket.inet_aton(question.sender), socket.inet_aton(question.target)
    return _PACKET.pack(*_ETHERNET_IPV4, _REQUEST, mac, sender, bytes(6), target)


def claim(data: bytes) -> tuple[str, str] | None:
    """The sender's address and MAC in an ARP packet; None if there are none."""
    if len(data) < _PACKET.size:
        return None
    *kind, _, mac, sender, _, _ = _PACKET.unpack_from(data)
    if tuple(kind) != _ETHERNET_IPV4 or sender == bytes(4):
        return None
    return socket.inet_ntoa(sender), mac.hex(":")


def _listen(selector: selectors.BaseSelector, targets: set[str], seconds: float) -> set[ArpSighting]:
    heard = set()
    deadline = time.monotonic() + seconds
    # What has come counts, even where this process had no core to read it in time: it looks once more at the end.
    left = seconds
    while (ready := selector.select(left)) or left > 0:
        for key, _ in ready:
            assert isinstance(key.fileobj, socket.socket)
            with contextlib.suppress(OSError):
                said = claim(key.fileobj.recv(256))
                if said is not None and said[0] in targets:
                    heard.add(ArpSighting(key.data, *said))
        left = max(0.0, deadline - time.monotonic())
    return heard
