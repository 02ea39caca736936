"""Socket options of links, in one place, each with its reason. (Those of local sockets: proxy/pump/options.py.)

Not set on purpose: SO_SNDBUF and SO_RCVBUF, but where memory is scarce (`bound_link`), because setting them switches
the kernel's own tuning off (tcp(7)); and TCP_CORK and MSG_MORE, because the pump makes one send for everything that a
turn has written.
"""

from __future__ import annotations

import socket

import trio

__all__ = ["NOTSENT_LOWAT", "USER_TIMEOUT", "bound_link", "prepare_link"]

NOTSENT_LOWAT = 128 * 1024
"""Unsent bytes that the kernel takes, besides those in flight: 1 ms of a 1 Gbit/s cable, so that a small message
waits for no more unsent bulk than that. Left to itself the send buffer grows to megabytes (measured on loopback with a
reader that stopped: 3.8 MB unsent; with this 140 to 165 KB, because the last piece is not split). Epoll reports the
link writable again below half of it, so 64 KiB (0.5 ms) stay queued while the pump gets round to it.

Precedents: 16 KiB, for the open internet (Cloudflare, "Optimizing HTTP/2 prioritization with BBR and
tcp_notsent_lowat", 2018); 16 KiB in trio's SocketStream, "pretty arbitrary" by its own comment."""

USER_TIMEOUT = 20
"""Seconds until the kernel gives up a link on which bytes stay unacknowledged. Twice the 10 s in which pings find a
dead peer by default: the kernel's timeout is for when no pings are sent (in the handshake, or if the pump is stuck)."""

_KEEPALIVE_IDLE, _KEEPALIVE_INTERVAL, _KEEPALIVE_PROBES = 10, 5, 2
# Their sum, 10 + 2 × 5 s, is USER_TIMEOUT: where that is set too, the kernel goes by it for idle connections as well
# and does not count probes (Cloudflare, "When TCP sockets refuse to die", 2019).


def prepare_link(sock: socket.socket | trio.socket.SocketType) -> None:
    """Set the options of a TCP connection between two proxies, dialled or accepted. Doing it again is harmless.

    Raises OSError if this is no TCP socket.
    """
    tcp = socket.IPPROTO_TCP
    # Nagle (RFC 896) would keep a message back until the last one is acknowledged: up to 40 ms (delayed ACK).
    sock.setsockopt(tcp, socket.TCP_NODELAY, 1)
    sock.setsockopt(tcp, socket.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT)
    # RFC 5482, tcp(7). For bytes that stay unacknowledged, which keepalive does not cover, and a window that stays 0.
    sock.setsockopt(tcp, socket.TCP_USER_TIMEOUT, USER_TIMEOUT * 1000)
    # For an idle link whose peer is gone. Also keeps the state of firewalls and balancers on the way alive where pings
    # are configured to be rare (IPVS forgets a connection after 900 s: moby#31208).
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(tcp, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE)
    sock.setsockopt(tcp, socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL)
    sock.setsockopt(tcp, socket.TCP_KEEPCNT, _KEEPALIVE_PROBES)


def bound_link(sock: socket.socket, size: int) -> None:
    """Let the kernel hold no more than `size` bytes in each direction, headers included, however fast the peer sends
    and however late it acknowledges. (The kernel doubles what it is told, for the headers: socket(7).) For where a
    cgroup's limit is small: by itself the kernel lets a TCP socket have some megabytes, which count as the proxy's.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size // 2)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size // 2)
