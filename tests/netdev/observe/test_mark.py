from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.netdev.observe import mark
from proxy.netdev.observe.mark import InterfaceMark

NAMES = st.from_regex(r"[a-z0-9][a-z0-9.-]{0,20}", fullmatch=True)


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (InterfaceMark(host="a", name="hl0"), "hostlane:a:hl0"),
        (InterfaceMark(host="a", name="vf0", original="eth1v0", original_mac="0a:00:00:00:00:01"),
         "hostlane:a:vf0:eth1v0:0a0000000001"),
        (InterfaceMark(host="a", name="vf0", vfs_before=0), "hostlane:a:vf0:::0"),
    ],
)  # fmt: skip
def test_marks(found: InterfaceMark, text: str) -> None:
    assert str(found) == text
    assert mark.read(text) == found


@given(NAMES, NAMES, NAMES | st.just(""), st.none() | st.integers(0, 65535))
def test_what_is_written_is_read(host: str, name: str, original: str, before: int | None) -> None:
    found = InterfaceMark(host=host, name=f"@{name}", original=original, vfs_before=before)
    assert mark.read(str(found)) == found
    assert found.container == name


@pytest.mark.parametrize("alias", ["", "hostlane", "hostlane:a", "uplink to rack 7", "hostlane:1:2:3:4:5:6", "x:a:b"])
def test_the_aliases_of_others(alias: str) -> None:
    assert mark.read(alias) is None


def test_a_stable_mac_never_changes() -> None:
    """Who changes this changes the address of every interface that is in use."""
    assert mark.stable_mac("host-a", "hl0") == "2a:1c:1b:ce:d0:2d"
    assert mark.stable_mac("host-a", "hl1") != mark.stable_mac("host-b", "hl1")
    assert mark.stable_mac("ab", "c") != mark.stable_mac("a", "bc")


@given(st.text(), st.text())
def test_a_stable_mac_is_one_machine_s_and_locally_administered(host: str, name: str) -> None:
    first, *rest = mark.stable_mac(host, name).split(":")
    assert int(first, 16) & 0b11 == 0b10
    assert len(rest) == 5


def test_names_of_vlan_interfaces() -> None:
    assert mark.vlan_name("eth0", 100) == "eth0.100"
    assert mark.vlan_name("enp1s0f0np", 4094) == "enp1s0f0np.4094"
    long = mark.vlan_name("enp1s0f0np0", 4094)
    assert len(long) <= 15
    assert long.endswith(".4094")
    assert long != mark.vlan_name("enp1s0f0np1", 4094)
