"""Addresses and sockets of one configuration that do not go together."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config import schema as config
from proxy.config.placecheck import missing_sources
from tests.config.test_check import HEAD, problems


@pytest.mark.failure("34")
@pytest.mark.parametrize("way", ["link/x.sock", "//link//x.sock", "far/x.sock"])
def test_two_ways_to_one_socket(tmp_path: Path, way: str) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "far").symlink_to(tmp_path / "link")
    upstreams = f"upstreams: {{x: {{listen: 'unix:{tmp_path}/real/x.sock'}}, y: {{listen: 'unix:{tmp_path}/{way}'}}}}"
    services = "services: {x: {deliver: 'unix:/s'}, y: {deliver: 'unix:/t'}}"
    (problem,) = problems(f"{HEAD}{services}\n{upstreams}\n")
    assert "where upstreams.x listens; allowed: a place of its own" in problem
    deliver = f"services: {{x: {{deliver: 'unix:{tmp_path}/{way}'}}}}"
    listen = f"upstreams: {{x: {{listen: 'unix:{tmp_path}/real/x.sock'}}}}"
    (problem,) = problems(f"{HEAD}{deliver}\n{listen}\n")
    assert "where upstreams.x listens; allowed: the socket" in problem


def test_the_admin_socket_by_another_way(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "var").symlink_to("run")
    text = f"run_dir: {tmp_path}/var\nupstreams: {{x: {{listen: 'unix:{tmp_path}/run/next.sock'}}}}\n"
    (problem,) = problems(f"{HEAD}services: {{x: {{deliver: 'unix:/s'}}}}\n{text}")
    assert f'next.sock", in run_dir {tmp_path}/var, where the sockets that command live' in problem


@pytest.mark.failure("34")
@pytest.mark.parametrize(
    ("listen", "deliver"),
    [("127.0.0.1", "localhost"), ("'[::]'", "127.0.0.1"), ("'[::1]'", "'[0:0::1]'"), ("0.0.0.0", "127.9.9.9")],
)
def test_a_service_at_an_upstream_under_another_name(listen: str, deliver: str) -> None:
    listen, deliver = (f"'tcp:{each.strip(chr(39))}:8080'" for each in (listen, deliver))
    (problem,) = problems(f"{HEAD}services: {{x: {{deliver: {deliver}}}}}\nupstreams: {{x: {{listen: {listen}}}}}\n")
    assert problem.endswith("where upstreams.x listens; allowed: the socket of the service itself")


@pytest.mark.failure("29")
@pytest.mark.parametrize(
    ("service", "expected"),
    [
        ("deliver: 'tcp:10.0.0.9:80', source: [10.0.0.5, 10.0.0.6]", ""),
        ("deliver: 'tcp:db.internal:80', source: [10.0.0.5, 'fd00::5']", ""),
        ("deliver: 'unix:/s', source: [10.0.0.5]",
         "source: found beside deliver to a unix: socket; allowed: with tcp: only"),
        ("deliver: 'tcp:10.0.0.9:80', source: [10.0.0.5, 10.0.0.6, 10.0.0.5]",
         'source[2]: found "10.0.0.5" a second time; allowed: each once'),
        ("deliver: 'tcp:[fd00::9]:80', source: ['fd00::5', 'FD00:0::5']",
         'source[1]: found "fd00::5" a second time; allowed: each once'),
        ("deliver: 'tcp:10.0.0.9:80', source: ['fd00::5']",
         'source[0]: found "fd00::5" beside deliver to "10.0.0.9"; allowed: IPv4 addresses of this host'),
        ("deliver: 'tcp:[fd00::9]:80', source: [10.0.0.5]",
         'source[0]: found "10.0.0.5" beside deliver to "fd00::9"; allowed: IPv6 addresses of this host'),
    ],
)  # fmt: skip
def test_where_connections_to_a_service_come_from(service: str, expected: str) -> None:
    found = [problem.split(" ", 1)[1] for problem in problems(f"{HEAD}services: {{x: {{{service}}}}}\n")]
    assert found == ([f"services.x.{expected}"] if expected else [])


def on_interfaces(text: str, links: str = "", listen: str = "10.0.0.1:7600") -> list[str]:
    """The problems of a configuration, without where they stand in the file."""
    head = f"host: a\nlinks: {{listen: '{listen}', security: none{links}}}\n"
    return [problem.split(" ", 1)[1] for problem in problems(head + text)]


ON_ITS_OWN = "which each interface has on its own; allowed:"


@pytest.mark.failure("34")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("services: {x: {deliver: 'tcp:[fe80::9]:80'}}",
         f'services.x.deliver: found "[fe80::9]:80", {ON_ITS_OWN} [fe80::9%INTERFACE]:80'),
        ("services: {x: {deliver: 'unix:/x'}}\nupstreams: {x: {listen: 'tcp:[fe80::1]:80'}}",
         f'upstreams.x.listen: found "[fe80::1]:80", {ON_ITS_OWN} [fe80::1%INTERFACE]:80'),
        ("peers: {b: {address: '[fe80::2]:7600'}}",
         f'peers.b.address: found "[fe80::2]:7600", {ON_ITS_OWN} [fe80::2%INTERFACE]:7600'),
        ("control: {servers: ['[fe80::3]:7601']}",
         f'control.servers[0]: found "[fe80::3]:7601", {ON_ITS_OWN} [fe80::3%INTERFACE]:7601'),
        ("control: {servers: ['[fe80::3%eth0]:7601']}", ""),
        ("peers: {b: {address: '[fe80::2%eth0]:7600'}, c: {address: '[fe80::2%eth1]:7600'}}", ""),
        ("services: {x: {deliver: 'tcp:[fe80::9%eth0]:80', source: ['fe80::1%eth0']}}", ""),
    ],
)  # fmt: skip
def test_a_link_local_address_needs_its_interface(text: str, expected: str) -> None:
    assert on_interfaces(text) == ([expected] if expected else [])


@pytest.mark.failure("34")
@pytest.mark.parametrize(
    ("listen", "interface", "peer", "expected"),
    [
        ("[fe80::1]:7600", "", "", f'found "[fe80::1]:7600", {ON_ITS_OWN} [fe80::1%INTERFACE]:7600'),
        ("[fe80::1]:7600", "any", "", f'found "[fe80::1]:7600", {ON_ITS_OWN} [fe80::1%INTERFACE]:7600'),
        ("[fe80::1]:7600", "eth0", "[fe80::2]:7600", ""),
        ("[fe80::1%eth0]:7600", "eth0", "[fe80::2%eth0]:7600", ""),
        ("[fe80::1%eth0]:7600", "", "[fe80::2%eth0]:7600", ""),
        ("[fe80::1%eth1]:7600", "eth0", "",
         'found "[fe80::1%eth1]:7600" beside links.interface eth0; allowed: [fe80::1%eth0]:7600'),
        ("[fe80::1]:7600", "eth0", "[fe80::2%eth1]:7600",
         'found "[fe80::2%eth1]:7600" beside links.interface eth0; allowed: [fe80::2%eth0]:7600'),
    ],
)  # fmt: skip
def test_the_interface_of_the_links_is_theirs(listen: str, interface: str, peer: str, expected: str) -> None:
    """A socket that is bound to an interface knows which one is meant."""
    links = f", interface: {interface}" if interface else ""
    peers = f"peers: {{b: {{address: '{peer}'}}}}\n" if peer else ""
    found = on_interfaces(peers, links, listen)
    assert [problem.split(": ", 1)[1] for problem in found] == ([expected] if expected else [])


@pytest.mark.failure("34")
@pytest.mark.parametrize("listen", ["[fe80::1%eth0]:7600", "[FE80:0::1%2]:7600"])
def test_peers_are_told_no_address_that_means_nothing_to_them(listen: str) -> None:
    (problem,) = on_interfaces("control: {servers: [c:1]}\n", listen=listen)
    assert problem.startswith('links.listen: found "[fe80::1%')
    assert problem.endswith(
        "beside control, which peers are told, and whose interface means nothing on other machines; "
        "allowed: an address that is not link-local"
    )


@pytest.mark.failure("29", "34")
def test_sources_that_no_interface_has() -> None:
    """Those that the proxy makes itself are there when it has started."""
    text = """
interfaces: {hl0: {parent: eth0, addresses: [192.0.2.6/24]}}
services:
  own: {deliver: "tcp:10.0.0.9:80", source: [127.0.0.1, 127.0.0.9]}
  db: {deliver: "tcp:10.0.0.9:81", source: [192.0.2.5, 127.0.0.1, 192.0.2.6]}
  log: {deliver: "tcp:[fe80::9%lo]:82", source: ["fe80::dead%lo", "fe80::1%nosuch0"]}
"""
    found = list(missing_sources(config.parse(HEAD + text, "f")))
    assert found == [("db", "192.0.2.5"), ("log", "fe80::dead%lo"), ("log", "fe80::1%nosuch0")]
