"""Whether connection tracking sees what leaves this namespace: counted before and after a few packets of our own."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

from proxy.check.readers import files
from proxy.check.report import Unchecked
from proxy.check.rules.netfilter import TrackingMeasurement

COUNT = "/proc/sys/net/netfilter/nf_conntrack_count"
FLOWS = 8
"""New flows a round, each an empty datagram from a port of its own: few enough to harm nobody, more than the count of a
quiet machine moves by itself."""
ROUNDS = 3
_DISCARD = 9  # RFC 863: whoever listens there throws it away


def count() -> int | Unchecked:
    """Connections that this thread's namespace tracks now. A kernel without connection tracking tracks none."""
    found = files.number(COUNT, "nf_conntrack_count")
    return 0 if isinstance(found, Unchecked) and found.why == files.ABSENT else found


def measure(
    address: str, bind: Callable[[socket.socket, str], None] = lambda sock, address: None
) -> TrackingMeasurement | Unchecked:
    """Send datagrams to an address and see what becomes of the count. ``bind`` is given each socket before."""
    rounds = []
    for _ in range(ROUNDS):
        before = count()
        with contextlib.ExitStack() as stack:
            for _ in range(FLOWS):
                try:
                    _datagram(address, stack, bind)
                except OSError as error:
                    return files.unseen(f"whether connections to {address} are tracked", error)
            after = count()
        if isinstance(before, Unchecked) or isinstance(after, Unchecked):
            return before if isinstance(before, Unchecked) else Unchecked("nf_conntrack_count", "it went away")
        rounds.append((before, after))
    return TrackingMeasurement(to=address, flows=FLOWS, counts=tuple(rounds))


def _datagram(address: str, stack: contextlib.ExitStack, bind: Callable[[socket.socket, str], None]) -> None:
    """The socket stays open until all are sent, so that each has a port of its own."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sender = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
    bind(sender, address)
    # Not connected: the ICMP answer to one datagram would be the error of the next call.
    sender.sendto(b"", (address, _DISCARD))
