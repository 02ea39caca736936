"""What the door keeps for the next proxy: the upstreams' listening sockets, as systemd's store does (`fdstore`)."""

from __future__ import annotations

import os
import socket

import msgspec

from control.base.system.peercred import credentials_of
from proxy.config.schema import DoorConfig
from proxy.door.channel import MOST_BYTES
from proxy.door.messages import PROTOCOL, SOCKET, Fetch, FromDoor, Hello, Kept, Listed

__all__ = ["fetch"]

PATIENCE = 1.0
"""Seconds for each word of the door. It is on this machine, and has nothing to look up."""


def fetch(config: DoorConfig) -> list[tuple[str, socket.socket]]:
    """The sockets that it keeps, which are the caller's, with their names; none if it is away, somebody else's, or does
    not answer. Blocks. Raises nothing.
    """
    found: list[tuple[str, socket.socket]] = []
    decoder: msgspec.json.Decoder[FromDoor] = msgspec.json.Decoder(FromDoor)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(f"{config.directory}/{SOCKET}")
            if credentials_of(sock).uid not in (0, os.geteuid()):
                return []
            for word in (Hello(), Fetch()):
                sock.send(msgspec.json.encode(word))
            while True:
                data, descriptors, _, _ = socket.recv_fds(sock, MOST_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
                sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
                message = decoder.decode(data)
                if isinstance(message, Kept) and sockets:
                    found.append((message.name, sockets[0]))
                elif isinstance(message, Listed) or (isinstance(message, Hello) and message.protocol != PROTOCOL):
                    return found
    except (OSError, msgspec.MsgspecError):
        return found
