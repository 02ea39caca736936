from __future__ import annotations

import array
import fcntl
import struct

import pytest

from proxy.check.readers.ethtool import COMMANDS, SIOCETHTOOL, offloads
from proxy.check.report import Unchecked
from proxy.demo import netns
from tests.check.ground import Ground


def switch(namespace: str, interface: str, feature: str, on: bool) -> None:
    """``ethtool -K``."""
    value = array.array("I", [COMMANDS[feature] + 1, on])
    address, _ = value.buffer_info()
    with netns.make_socket(namespace) as sock:
        fcntl.ioctl(sock, SIOCETHTOOL, struct.pack("16sQ16x", interface.encode(), address))


@pytest.mark.netns
def test_a_veth(ground: Ground) -> None:
    with netns.entered(ground.here):
        assert offloads("eth0") == {"tso": True, "gro": False}
    switch(ground.here, "eth0", "gro", True)
    switch(ground.here, "eth0", "tso", False)
    with netns.entered(ground.here):
        assert offloads("eth0") == {"tso": False, "gro": True}


def test_no_such_interface() -> None:
    found = offloads("nowhere0")
    assert isinstance(found, Unchecked)
    assert (found.what, found.why) == ("offloads of nowhere0", "no such device")
