from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import schema as config
from proxy.netdev.observe.networkstate import NetworkState
from proxy.netdev.observe.records import NetInterface
from proxy.netdev.plan.budget import MacUsage, divide, usages
from tests.netdev.machine import HEAD
from tests.netdev.picture import ETH0, HL0, VLAN, changed, vf, world

OTHERS, ELSEWHERE = "02:00:00:00:00:99", "02:00:00:00:00:98"


def used(
    segment: str, found: NetworkState, interfaces: str = "{}", extra: str | None = None, peers: str = "{}"
) -> MacUsage:
    text = f"{HEAD}interfaces: {interfaces}\nsegments: {{front: {segment}}}\npeers: {peers}\n"
    text += f"containers: {{web: {extra or '{parent: eth7}'}}}\n"
    parsed = config.parse(text, "f")
    (usage,) = usages(parsed, found, parsed.containers["web"] if extra else None)
    return usage


def test_who_is_counted() -> None:
    """The parent, children of this namespace, those it receives for others, functions, and what the plan will make."""
    eth0 = changed(ETH0, unicast=(HL0.mac, ELSEWHERE), vfs=(vf(0, mac="02:00:00:00:00:50"), vf(1, mac=OTHERS, vlan=5)))
    down = changed(HL0, index=9, name="mv9", alias="", mac="02:00:00:00:00:07", up=False)
    old = changed(HL0, index=8, name="old0", alias="hostlane:a:old0", mac="02:00:00:00:00:08")
    found = used(
        "{parent: eth0, mac_limit: 100, hosts: 3}",
        world(eth0, HL0, down, old),
        f'{{hl0: {{parent: eth0, mac: "{HL0.mac}"}}, new0: {{parent: eth0, mac: "02:00:00:00:00:11"}}, '
        "no0: {parent: eth0, vlan: 3}}",
    )
    assert set(found.macs) == {
        ETH0.mac, HL0.mac, ELSEWHERE, "02:00:00:00:00:50", "02:00:00:00:00:07", "02:00:00:00:00:11",
    }  # fmt: skip
    assert "02:00:00:00:00:08" not in found.macs, "it goes with the next apply"
    assert OTHERS not in found.macs, "it is on another VLAN"
    assert (found.share, found.over) == (33, None)


def test_a_mac_that_changes_is_counted_once() -> None:
    eth0 = changed(ETH0, unicast=(HL0.mac,))
    found = used("{parent: eth0, mac_limit: 2}", world(eth0, HL0), f'{{hl0: {{parent: eth0, mac: "{ELSEWHERE}"}}}}')
    assert found.macs == (ETH0.mac, ELSEWHERE)


def test_a_vlan_is_a_segment_of_its_own() -> None:
    vlan = changed(VLAN, unicast=("02:00:00:00:00:31",))
    eth0 = changed(ETH0, unicast=(OTHERS,), vfs=(vf(0, mac="02:00:00:00:00:50", vlan=100),))
    found = used("{parent: eth0, vlan: 100, mac_limit: 2}", world(eth0, vlan), peers="{b: {address: 10.0.0.2:1}}")
    assert found.macs == (ETH0.mac, "02:00:00:00:00:31", "02:00:00:00:00:50")
    assert found.over == ("segment front: this host would use 3 MACs of its share of 1 (2 for 2 hosts)")
    assert used("{parent: eth0, vlan: 7, mac_limit: 2}", world(eth0, vlan)).macs == ()
    assert used("{parent: eth9, mac_limit: 2}", world(eth0)).macs == ()


def test_one_more_for_a_container() -> None:
    found = used("{parent: eth0, mac_limit: 1, over_limit: warn}", world(ETH0), extra="{parent: eth0}")
    assert found.over == "segment front: this host would use 2 MACs of its share of 1 (1 for 1 host)"
    assert not found.refuse
    assert used("{parent: eth0, mac_limit: 1}", world(ETH0), extra="{parent: eth0, vlan: 4}").over is None


@pytest.mark.parametrize(
    ("hosts", "containers", "limit", "expected"),
    [
        # hosts a segment = 4096 // (2 + 200) = 20
        (100, 200, 4096, (20_200, 5, 20, 200, 1)),
        (10, 10, 120, (120, 1, 10, 10, 1)),
        (10, 10, 119, (120, 2, 9, 10, 1)),
        # A segment has room for 98 containers of one host: 300 stand on four.
        (2, 300, 100, (2 * 8 + 600, 8, 1, 75, 4)),
        (100, 0, 4096, (200, 1, 100, 0, 1)),
        (1, 1, 3, (3, 1, 1, 1, 1)),
    ],
)
def test_division(hosts: int, containers: int, limit: int, expected: tuple[int, ...]) -> None:
    found = divide(hosts, containers, limit)
    assert (
        found.macs, found.segments, found.hosts_per_segment, found.containers_per_host, found.segments_per_host,
    ) == expected  # fmt: skip


@given(st.integers(1, 2000), st.integers(0, 2000), st.integers(3, 100_000))
def test_a_division_keeps_to_the_limit_and_has_room_for_all(hosts: int, containers: int, limit: int) -> None:
    found = divide(hosts, containers, limit)
    assert found.hosts_per_segment * (2 + found.containers_per_host) <= limit
    assert found.segments_per_host * found.containers_per_host >= containers
    assert found.segments * found.hosts_per_segment >= hosts * found.segments_per_host


@pytest.mark.parametrize(("hosts", "containers", "limit"), [(1, 1, 2), (0, 1, 100), (1, 0, 1)])
def test_no_division(hosts: int, containers: int, limit: int) -> None:
    with pytest.raises(ValueError, match="allowed: "):
        divide(hosts, containers, limit)


def test_a_proposal_is_one_line() -> None:
    assert str(divide(100, 200, 4096)) == (
        "5 segments with at most 20 hosts each; each host on 1 of them, with at most 200 containers there; "
        "20200 MACs in all"
    )


def test_passthru_has_no_mac_of_its_own() -> None:
    there: NetInterface = changed(HL0, macvlan_mode="passthru", mac=ETH0.mac)
    found = used("{parent: eth0, mac_limit: 9}", world(ETH0, there), "{hl0: {parent: eth0, mode: passthru}}")
    assert found.macs == (ETH0.mac,)


def test_with_a_control_plane_the_sum_counts_and_not_the_share() -> None:
    segments = "segments: {front: {parent: eth0, mac_limit: 10, hosts: 10}}\n"
    parsed = config.parse(f"{HEAD}interfaces: {{hl0: {{parent: eth0}}}}\n{segments}", "f")
    assert usages(parsed, world(ETH0))[0].over, "two, and a share of one"
    assert usages(parsed, world(ETH0), elsewhere={"other": 99})[0].over, "it knows no such segment"
    (fits,) = usages(parsed, world(ETH0), elsewhere={"front": 8})
    assert (fits.elsewhere, fits.over) == (8, None)
    (full,) = usages(parsed, world(ETH0), elsewhere={"front": 9})
    assert full.over == (
        "segment front: 11 MACs of 10 would be used, 2 here and 9 by other hosts, as the control plane counts them"
    )
