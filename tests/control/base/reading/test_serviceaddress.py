from __future__ import annotations

import ipaddress

from control.base.reading.serviceaddress import SharedAddresses, address_of, shared

TWO = ("service-1262", "service-2207")
"""Found by trying names: both have 127.112.240.28."""
LINE = (
    "services service-1262 and service-2207 have one address, 127.112.240.28: a container that uses both at one port "
    "gives one of them another (hostlane.use: service-2207@127.x.y.z:PORT)"
)


def test_addresses_of_names_are_stable_and_of_their_network() -> None:
    # They stand in people's compose files: a change here breaks those.
    assert address_of("redis") == "127.123.70.200"
    network = ipaddress.ip_network("127.64.0.0/10")
    found = {address_of(f"service-{number}") for number in range(2000)}
    assert len(found) > 1990
    assert all(ipaddress.ip_address(address) in network for address in found)
    assert not [address for address in found if address.endswith((".0", ".255"))]


def test_services_with_one_address_are_said_once() -> None:
    assert shared(reversed(TWO)) == [LINE]
    assert shared(["redis", "web", "redis"]) == []
    seen = SharedAddresses()
    assert [seen.see([name]) for name in ("redis", *TWO, *TWO)] == [[], [], [LINE], [], []]
