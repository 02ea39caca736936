"""A name server (RFC 1035) of a test's own, and how a process in a network namespace comes to ask it."""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, Self

PORT = 53
A, AAAA = 1, 28

Answer = list[str] | Literal["silent", "failure"]
"""Addresses; no answer at all; or that it cannot tell (SERVFAIL). Other names do not exist (NXDOMAIN)."""


class NameServer:
    """Answers from a thread, for as long as the block lasts.

    Args:
        sock: an unbound datagram socket, in the namespace where `address` is.

    Attributes:
        names: what it answers; may be changed at any time.
        asked: questions so far, by name.
    """

    def __init__(self, sock: socket.socket, names: Mapping[str, Answer], address: str = "127.0.0.53") -> None:
        self.names: dict[str, Answer] = dict(names)
        self.asked = Counter[str]()
        self._sock = sock
        sock.bind((address, PORT))
        self._thread = threading.Thread(target=self._run, daemon=True, name="name server")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._thread.join()
        self._sock.close()

    def _run(self) -> None:
        while True:
            try:
                question, source = self._sock.recvfrom(512)
            except OSError:
                return
            if not question:
                return
            answer = self._answer(question)
            if answer:
                self._sock.sendto(answer, source)

    def _answer(self, question: bytes) -> bytes:
        labels, at = [], 12
        while length := question[at]:
            labels.append(question[at + 1 : at + 1 + length].decode())
            at += 1 + length
        end = at + 5
        kind = int.from_bytes(question[at + 1 : at + 3], "big")
        name = ".".join(labels).lower()
        self.asked[name] += 1
        known = self.names.get(name)
        if known == "silent":
            return b""
        records, code = [], 3 if known is None else 2 if known == "failure" else 0
        for text in known if isinstance(known, list) else []:
            address = ipaddress.ip_address(text)
            if kind == (A if address.version == 4 else AAAA):
                packed = address.packed
                records.append(b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 0, len(packed)) + packed)
        head = question[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, len(records), 0, 0)
        return head + question[12:end] + b"".join(records)


@contextmanager
def asked_by(netns: str, *, hosts: Mapping[str, list[str]] | None = None, timeout: int = 30) -> Iterator[None]:
    """Processes that start in a namespace during the block (``ip netns exec``) ask a `NameServer` there, once and for
    so many seconds, and have these lines in /etc/hosts.
    """
    folder = Path("/etc/netns") / netns
    folder.mkdir(parents=True)
    try:
        (folder / "resolv.conf").write_text(f"nameserver 127.0.0.53\noptions timeout:{timeout} attempts:1\n")
        lines = [f"{address} {name}\n" for name, addresses in (hosts or {}).items() for address in addresses]
        (folder / "hosts").write_text("".join(lines))
        yield
    finally:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
