from __future__ import annotations

import pytest

from proxy.demo import netns
from proxy.netdev.observe import sysctls
from proxy.netdev.observe.networkstate import Ipv4Settings

pytestmark = pytest.mark.netns


def test_they_are_those_of_the_namespace_and_can_be_written(space: str) -> None:
    with netns.entered(space):
        for key, value in (("arp_ignore", 1), ("arp_announce", 2), ("rp_filter", 2)):
            sysctls.write("eth0", key, value)
        found = sysctls.read(["eth0", "hl-never"])
    assert found["eth0"] == Ipv4Settings(1, 2, 2)
    assert set(found) == {"all", "default", "eth0"}
    assert netns.run(netns.inside(space, ["cat", "/proc/sys/net/ipv4/conf/eth0/arp_announce"])).strip() == "2"
    with netns.entered(space), pytest.raises(OSError, match="No such file"):
        sysctls.write("hl-never", "arp_ignore", 1)
