"""A machine for each test: a namespace with eth0, one end of a cable that is plugged in."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest

from proxy.demo import netns

_serials = itertools.count()


@pytest.fixture
def space() -> Iterator[str]:
    """The name of a fresh namespace: eth0 is up and has a carrier, no addresses (IPv6 link-local ones apart)."""
    name = f"{netns.PREFIX}-{os.getpid()}-{next(_serials)}-netdev"
    netns.add(name)
    try:
        # The kernel looks for duplicates of IPv6 addresses for a second; no test wants to wait for that.
        still = "for file in /proc/sys/net/ipv6/conf/*/accept_dad; do echo 0 >$file; done"
        netns.run(netns.inside(name, ["sh", "-c", still]))
        netns.run(["ip", "-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", "cable"])
        for end in ("eth0", "cable"):
            netns.run(["ip", "-n", name, "link", "set", end, "up"])
        yield name
    finally:
        netns.delete(name)
