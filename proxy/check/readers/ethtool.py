"""Offloads of an interface, through the ethtool ioctl, which needs no privilege to read (<linux/ethtool.h>)."""

from __future__ import annotations

import array
import fcntl
import socket
import struct

from proxy.check.readers import files
from proxy.check.report import Unchecked

SIOCETHTOOL = 0x8946
COMMANDS = {"tso": 0x1E, "gro": 0x2B}
"""ETHTOOL_GTSO, ETHTOOL_GGRO; the ones that set are greater by one."""


def offloads(interface: str) -> dict[str, bool] | Unchecked:
    """Which of `COMMANDS` are on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            return {name: _value(sock, interface, command) for name, command in COMMANDS.items()}
        except OSError as error:
            return files.unseen(f"offloads of {interface}", error)


def _value(sock: socket.socket, interface: str, command: int) -> bool:
    answer = array.array("I", [command, 0])
    address, _ = answer.buffer_info()
    fcntl.ioctl(sock, SIOCETHTOOL, struct.pack("16sQ16x", interface.encode(), address))
    return bool(answer[1])
