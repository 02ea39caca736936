from __future__ import annotations

from collections.abc import Callable

import pytest

from control.base.reading.addresses import TcpAddress
from proxy.config import netvalues

Reader = Callable[[object], object]


@pytest.mark.parametrize(
    ("reader", "raw", "value"),
    [
        (netvalues.interface_name, "eth0", "eth0"),
        (netvalues.interface_name, "enp1s0f0np0.100", "enp1s0f0np0.100"),
        (netvalues.container_name, "web-1_a.b", "web-1_a.b"),
        (netvalues.mac, "STABLE", "stable"),
        (netvalues.mac, "02:00:5E:10:00:01", "02:00:5e:10:00:01"),
        (netvalues.address, "10.77.0.1/24", "10.77.0.1/24"),
        (netvalues.address, "10.77.0.1/32", "10.77.0.1/32"),
        (netvalues.address, "10.77.0.0/31", "10.77.0.0/31"),
        (netvalues.address, "FD00:0::1/64", "fd00::1/64"),
        (netvalues.address_or_auto, "auto", "auto"),
        (netvalues.address_or_auto, "10.77.0.1/24", "10.77.0.1/24"),
        (netvalues.links_address, "auto", TcpAddress("auto", 7600)),
        (netvalues.links_address, "auto:65535", TcpAddress("auto", 65535)),
        (netvalues.links_address, None, None),
        (netvalues.network, "default", "default"),
        (netvalues.network, "10.80.0.0/16", "10.80.0.0/16"),
        (netvalues.network, "0.0.0.0/0", "0.0.0.0/0"),
        (netvalues.network, "fd00:0:0::/32", "fd00::/32"),
        (netvalues.ip, "fd00:0::1", "fd00::1"),
        (netvalues.own_ip, "FE80::1%eth0", "fe80::1%eth0"),
        (netvalues.rate, "500Mbit", 500),
        (netvalues.rate, "10Gbit", 10_000),
    ],
)
def test_good(reader: Reader, raw: str, value: object) -> None:
    assert reader(raw) == value


@pytest.mark.parametrize(
    ("reader", "raw", "found"),
    [
        (netvalues.interface_name, "a" * 16, f'found "{"a" * 16}"; allowed: 1 to 15 of'),
        (netvalues.interface_name, "a/b", 'found "a/b"; allowed: 1 to 15 of'),
        (netvalues.interface_name, ".", 'found "."; '),
        (netvalues.interface_name, 5, "found 5, a number without quotes; "),
        (netvalues.container_name, "/web", 'found "/web"; allowed: the name of a container'),
        (netvalues.mac, "02:00:5e:10:00", 'found "02:00:5e:10:00"; allowed: stable'),
        (netvalues.mac, "03:00:5e:10:00:01", 'found "03:00:5e:10:00:01", which is the address of a group; '),
        (netvalues.mac, "00:00:00:00:00:00", 'found "00:00:00:00:00:00", which is no machine'),
        (netvalues.mac, None, "found nothing; "),
        (netvalues.address_or_auto, "10.77.0.1", 'found "10.77.0.1"; allowed: an IP address with its prefix length'),
        (netvalues.address_or_auto, "10.77.0.0/24", 'found "10.77.0.0/24", which stands for a whole network; '),
        (netvalues.address_or_auto, ["auto"], "found a list; "),
        (netvalues.links_address, "auto:0", 'found "auto:0"; allowed: auto (port 7600), "auto:PORT"'),
        (netvalues.links_address, "auto:65536", 'found "auto:65536"; '),
        (netvalues.links_address, "10.0.0.1:7600", 'found "10.0.0.1:7600"; '),
        (netvalues.links_address, 7600, "found 7600; "),
        (netvalues.address, "10.77.0.1", 'found "10.77.0.1"; allowed: an IP address with its prefix length'),
        (netvalues.address, "10.77.0.1/33", 'found "10.77.0.1/33"; '),
        (netvalues.address, "10.77.0.0/24", 'found "10.77.0.0/24", which stands for a whole network; '),
        (netvalues.address, "10.77.0.255/24", 'found "10.77.0.255/24", which stands for a whole network; '),
        (netvalues.address, "127.0.0.2/8", 'found "127.0.0.2/8", which no network interface of a host can have; '),
        (netvalues.address, "fe80::1%eth0/64", 'found "fe80::1%eth0/64"; '),
        (netvalues.address, ["10.77.0.1/24"], "found a list; "),
        (netvalues.network, "10.80.0.1/16", 'found "10.80.0.1/16", which is inside of 10.80.0.0/16; allowed: default'),
        (netvalues.network, "10.80.0.0", 'found "10.80.0.0"; '),
        (netvalues.ip, "10.77.0.254/24", 'found "10.77.0.254/24"; allowed: an IP address'),
        (netvalues.ip, 7, "found 7; "),
        (netvalues.routing_table, 254, "found 254; allowed: the number of a routing table, 1 to 252 or 256 to 42949"),
        (netvalues.routing_table, 0, "found 0; "),
        (netvalues.routing_table, 2**32, "found 4294967296; "),
        (netvalues.routing_table, True, "found true; "),
        (netvalues.routing_table, "main", 'found "main"; '),
        (netvalues.own_ip, "db.internal", 'found "db.internal"; allowed: an IP address of this host, such as'),
        (netvalues.own_ip, "10.77.0.1/24", 'found "10.77.0.1/24"; '),
        (netvalues.own_ip, "0.0.0.0", 'found "0.0.0.0", which no network interface of a host can have; '),
        (netvalues.own_ip, "::", 'found "::", which no network interface of a host can have; '),
        (netvalues.own_ip, "ff02::1", 'found "ff02::1", which no network interface of a host can have; '),
        (netvalues.own_ip, "fe80::1", 'found "fe80::1", which each interface has on its own; allowed: fe80::1%INTERF'),
        (netvalues.own_ip, "fd00::1%eth0", 'found "fd00::1%eth0", an interface (%) behind an address that is not '),
        (netvalues.own_ip, None, "found nothing; "),
        (netvalues.rate, 500, "found 500; allowed: a rate with its unit"),
        (netvalues.rate, "0Mbit", 'found "0Mbit"; '),
        (netvalues.rate, "1001Gbit", 'found "1001Gbit"; '),
        (netvalues.whole_seconds, "500ms", 'found "500ms"; allowed: 1s to 1h, in whole seconds'),
        (netvalues.whole_seconds, "1.5s", 'found "1.5s"; '),
        (netvalues.whole_seconds, "0s", 'found "0s"; '),
        (netvalues.whole_seconds, "2h", 'found "2h"; '),
        (netvalues.whole_seconds, 60, "found 60, which has no unit; "),
    ],
)
def test_bad(reader: Reader, raw: object, found: str) -> None:
    with pytest.raises(ValueError) as caught:
        reader(raw)
    assert str(caught.value).startswith(found)
    assert "; allowed: " in str(caught.value)


@pytest.mark.parametrize("text", ["auto", "any", "hl0", "eth0.100"])
def test_what_links_go_through(text: str) -> None:
    assert netvalues.links_interface(text) == text


@pytest.mark.parametrize("raw", ["", "a name", "longer-than-15-bytes", "-hl0", 7, None])
def test_what_is_no_interface_for_links(raw: object) -> None:
    with pytest.raises(ValueError, match="allowed: auto, any, or the name of an interface: 1 to 15"):
        netvalues.links_interface(raw)
