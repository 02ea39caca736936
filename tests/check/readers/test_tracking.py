from __future__ import annotations

import pytest

from proxy.check.readers import tracking
from proxy.check.report import Unchecked
from proxy.check.rules.netfilter import TrackingMeasurement
from proxy.demo import netns
from tests.check.ground import Ground

TRACKED = "table inet f { chain o { type filter hook output priority 0; ct state new counter accept; }; }"

pytestmark = pytest.mark.netns


def measured(ground: Ground, address: str) -> TrackingMeasurement:
    with netns.entered(ground.here):
        found = tracking.measure(address)
    assert isinstance(found, TrackingMeasurement)
    return found


@pytest.mark.parametrize("address", ["10.77.0.2", "fd00::2", "127.0.0.1"])
def test_a_rule_switches_it_on(ground: Ground, address: str) -> None:
    ground.ip(ground.here, "address add fd00::1/64 dev eth0 nodad")
    before = measured(ground, address)
    assert (before.on, {*before.counts}) == (False, {(0, 0)})
    ground.nft(ground.here, TRACKED)
    after = measured(ground, address)
    assert after.on
    # Neighbour discovery is tracked too.
    assert all(end - begin >= tracking.FLOWS for begin, end in after.counts)


def test_no_way_to_the_address(ground: Ground) -> None:
    with netns.entered(ground.here):
        found = tracking.measure("10.1.1.1")
    assert found == Unchecked("whether connections to 10.1.1.1 are tracked", "network is unreachable")
