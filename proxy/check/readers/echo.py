"""ICMP echo requests of a chosen size that no router may fragment. Needs a ping socket (net.ipv4.ping_group_range) or
root.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import time
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self

from proxy.check.report import Unchecked

IP_MTU_DISCOVER, IPV6_MTU_DISCOVER = 10, 23  # <linux/in.h>, <linux/in6.h>; in Python's socket only by accident
PROBE = 3
"""IP_PMTUDISC_PROBE: set DF, and do not go by the path MTU that the kernel remembers."""
IP_RECVERR, IPV6_RECVERR = 11, 25
_EXTENDED_ERROR = struct.Struct("=IBBBBII")
_ECHO = struct.Struct("!BBHHH")
FIRST_REPLY_S = 1.0
"""Seconds to wait for an answer until there was one."""
REPLY_S = 0.1
"""Shortest wait afterwards; the usual one is `PATIENCE` times what the answers so far took."""
PATIENCE = 4
TRIES = 3


class PacketTooBig(NamedTuple):
    """The answer that a router (or this host itself), ``by``, passes on no more than ``mtu`` bytes."""

    mtu: int
    by: str | None


class EchoProbe:
    """Sends echo requests to one address; ``with`` closes the socket."""

    def __init__(self, address: str, sock: socket.socket, raw: bool) -> None:
        self._address, self._socket, self._raw = address, sock, raw
        self._v6 = sock.family == socket.AF_INET6
        self._number = 0
        self._patience = FIRST_REPLY_S
        self._slowest = REPLY_S / PATIENCE

    @property
    def header_bytes(self) -> int:
        """IP and ICMP headers: the smallest packet."""
        return (40 if self._v6 else 20) + _ECHO.size

    def ask(self, size: int) -> bool | PacketTooBig:
        """Whether a packet of ``size`` bytes comes back; False after `TRIES` of them did not.

        Raises OSError when the kernel cannot send at all.
        """
        for _ in range(TRIES):
            self._number += 1
            began = time.monotonic()
            try:
                self._socket.sendto(self._request(size), (self._address, 0))
            except OSError as error:
                if error.errno == errno.EMSGSIZE:
                    return self._complaint() or PacketTooBig(size - 1, None)
                # A virtual cable says that the other end has just dropped it.
                if error.errno != errno.ENOBUFS:
                    raise
            answer = self._answer(began + self._patience)
            if answer is not None:
                # One that was read too late says how long this process had no core, and nothing about the path.
                if (took := time.monotonic() - began) <= self._patience:
                    self._slowest = max(self._slowest, took)
                    self._patience = PATIENCE * self._slowest
                return answer
        return False

    def _answer(self, deadline: float) -> bool | PacketTooBig | None:
        while True:
            # What has come counts, even where this process had no core to read it in time: it looks once at least.
            self._socket.settimeout(max(0.0, deadline - time.monotonic()))
            try:
                packet = self._socket.recv(65536)
            except (TimeoutError, BlockingIOError):
                return None
            except OSError:
                # What a router said makes recv fail once; the message itself is in the error queue.
                if (complaint := self._complaint()) is not None:
                    return complaint
                if time.monotonic() > deadline:
                    return None
                continue
            if self._is_mine(packet):
                return True

    def _request(self, size: int) -> bytes:
        kind = 128 if self._v6 else 8
        body = bytes(size - self.header_bytes)
        head = _ECHO.pack(kind, 0, 0, os.getpid() & 0xFFFF, self._number)
        # The kernel computes the checksum for ping sockets and for ICMPv6.
        checksum = 0 if self._v6 else _checksum(head + body)
        return _ECHO.pack(kind, 0, checksum, os.getpid() & 0xFFFF, self._number) + body

    def _is_mine(self, packet: bytes) -> bool:
        """Raw IPv4 sockets hear everybody's ICMP, with the IP header before it; ping sockets their own."""
        start = (packet[0] & 15) * 4 if self._raw and not self._v6 else 0
        if len(packet) < start + _ECHO.size:
            return False
        kind, _, _, identity, number = _ECHO.unpack_from(packet, start)
        mine = not self._raw or identity == os.getpid() & 0xFFFF
        return mine and (kind, number) == (129 if self._v6 else 0, self._number)

    def _complaint(self) -> PacketTooBig | None:
        """What the error queue says about a packet that was too big."""
        found = None
        self._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                _, ancillary, _, _ = self._socket.recvmsg(0, 512, socket.MSG_ERRQUEUE)
                for _, _, data in ancillary:
                    code, _, _, _, _, info, _ = _EXTENDED_ERROR.unpack_from(data)
                    if code == errno.EMSGSIZE:
                        found = PacketTooBig(info, _offender(data[_EXTENDED_ERROR.size :]))
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()


def open_echo(
    address: str, bind: Callable[[socket.socket, str], None] = lambda sock, address: None
) -> EchoProbe | Unchecked:
    """The caller closes it. ``bind`` is given the socket before anything is sent."""
    v6 = ":" in address
    family = socket.AF_INET6 if v6 else socket.AF_INET
    protocol = socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError:
            continue
        if v6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PROBE)
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PROBE)
            sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        bind(sock, address)
        return EchoProbe(address, sock, raw=kind == socket.SOCK_RAW)
    why = "no right to send echo requests; ask as root, or let the group in net.ipv4.ping_group_range"
    return Unchecked(f"path MTU to {address}", why)


def _offender(raw: bytes) -> str | None:
    """The address in a sockaddr_in or sockaddr_in6."""
    family = int.from_bytes(raw[:2], "little") if len(raw) >= 8 else 0
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, raw[4:8])
    return socket.inet_ntop(socket.AF_INET6, raw[8:24]) if family == socket.AF_INET6 and len(raw) >= 24 else None


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
