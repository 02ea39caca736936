from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.base.reading import addresses
from control.base.reading.addresses import TcpAddress, UnixAddress

READERS = [
    addresses.ip_port, addresses.host_port, addresses.listen_address, addresses.deliver_address, addresses.run_dir,
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("10.77.0.1:7600", "10.77.0.1", 7600),
        ("0.0.0.0:1", "0.0.0.0", 1),
        ("[::1]:65535", "::1", 65535),
        ("[FE80:0:0::1%eth0]:7600", "fe80::1%eth0", 7600),
        ("[::ffff:10.77.0.1]:7600", "10.77.0.1", 7600),
        ("[0:0:0:0:0:FFFF:0A4D:0001]:7600", "10.77.0.1", 7600),
    ],
)
def test_ip_port(text: str, host: str, port: int) -> None:
    address = addresses.ip_port(text)
    assert address == TcpAddress(host, port)
    assert addresses.ip_port(address.hostport) == address
    assert addresses.listen_address(str(address)) == address


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ("10.77.0.1", "no port"),
        ("10.77.0.1:", "a bad port"),
        ("10.77.0.1:0", "a bad port"),
        ("10.77.0.1:65536", "a bad port"),
        ("10.77.0.1:07600", "a bad port"),
        ("10.77.0.1:http", "a bad port"),
        ("10.77.0.1:7600 ", "a bad port"),
        ("10.77.0.300:7600", "a bad IP address"),
        ("010.77.0.1:7600", "a bad IP address"),
        ("localhost:7600", "a bad IP address"),
        (":7600", "a bad IP address"),
        ("fe80::1", "an IPv6 address needs brackets"),
        ("fe80::1:7600", "an IPv6 address needs brackets"),
        ("1:2:3:4:5:6:7:8:7600", "an IPv6 address needs brackets"),
        ("[fe80::1]", "a bad port"),
        ("[10.77.0.1]:7600", "a bad IPv6 address"),
        ("[fe80::1%]:7600", "a bad IPv6 address"),
        ("[fe80::1%a b]:7600", "a bad IPv6 address"),
        ("[fd00::1%eth0]:7600", "an interface \\(%\\) behind an address that is not link-local"),
        ("[::%eth0]:7600", "an interface \\(%\\) behind an address that is not link-local"),
        (7600, ""),
        (None, ""),
        ([], r"a list, which \[ \] make without quotes"),
        (["fd00::1"], r"a list, which \[ \] make without quotes"),
    ],
)
def test_bad_ip_port(raw: object, why: str) -> None:
    with pytest.raises(ValueError, match=rf"found .*{why}.*; allowed: IP:PORT or \[IPv6\]:PORT"):
        addresses.ip_port(raw)


@pytest.mark.parametrize("host", ["host-b", "host-b.example", "db_1", "10.77.0.2", "x.7y", "xn--fr-eka.example"])
def test_host_port(host: str) -> None:
    assert addresses.host_port(f"{host}:7600") == TcpAddress(host, 7600)
    assert addresses.deliver_address(f"tcp:{host}:7600") == TcpAddress(host, 7600)


@pytest.mark.parametrize(
    "host", ["", "-b", "b-", "a..b", "a b", "für", "10.77.0.300", "1.2.3", "a" * 64, "a." * 130 + "a"]
)
def test_bad_host_name(host: str) -> None:
    with pytest.raises(ValueError, match="a bad host name or address; allowed: IP:PORT"):
        addresses.host_port(f"{host}:7600")


@pytest.mark.parametrize("text", ["0.0.0.0:80", "[::]:80"])
def test_nobody_can_be_reached_at_every_address(text: str) -> None:
    for reader, raw in ((addresses.host_port, text), (addresses.deliver_address, f"tcp:{text}")):
        with pytest.raises(ValueError, match="stands for every address"):
            reader(raw)


def test_dns_name() -> None:
    assert addresses.dns_name("Proxy-1.Example") == "proxy-1.example"
    for raw in ("a:1", "", "a..b", 5, "10.0.0.1"):
        with pytest.raises(ValueError, match="allowed: a host name, without a port"):
            addresses.dns_name(raw)


def test_unix_address() -> None:
    for reader in (addresses.listen_address, addresses.deliver_address):
        assert reader("unix:/run/a b.sock") == UnixAddress("/run/a b.sock")
        assert reader("unix://run//x.sock") == UnixAddress("/run/x.sock")
    assert str(UnixAddress("/run/x.sock")) == "unix:/run/x.sock"


@pytest.mark.failure(15)
def test_the_longest_path_of_a_unix_socket() -> None:
    longest = "/" + "x" * 106
    assert addresses.listen_address(f"unix:{longest}") == UnixAddress(longest)
    with pytest.raises(ValueError, match="a path of 108 bytes; allowed: a path of at most 107 bytes"):
        addresses.listen_address(f"unix:{longest}x")
    with pytest.raises(ValueError, match="a path of 109 bytes"):  # 55 characters
        addresses.listen_address("unix:/" + "ä" * 54)


@pytest.mark.parametrize(
    "raw",
    [
        "unix:",
        "unix:run/x",
        "unix:@abstract",
        "unix:/",
        "unix:/run/",
        "unix:/a/../b",
        "unix:/\0x",
        "redis.sock",
        "http://x",
        "",
        None,
        6379,
        {},
    ],
)
def test_bad_listen_address(raw: object) -> None:
    with pytest.raises(ValueError, match="; allowed: "):
        addresses.listen_address(raw)


def test_a_path_without_scheme_gets_a_hint() -> None:
    with pytest.raises(ValueError, match='did you mean "unix:/run/redis.sock"?'):
        addresses.listen_address("/run/redis.sock")


def test_run_dir_leaves_room_for_the_admin_socket() -> None:
    longest = "/" + "x" * 95
    assert addresses.run_dir(longest) == longest
    assert len(f"{longest}/{addresses.ADMIN_SOCKET}") == addresses.UNIX_PATH_BYTES
    with pytest.raises(ValueError, match="at most 96 bytes"):
        addresses.run_dir(longest + "x")


@pytest.mark.parametrize(
    ("one", "other", "answer"),
    [
        ("unix:/a", "unix:/a", True),
        ("unix:/a", "unix:/b", False),
        ("unix:/a", "tcp:1.1.1.1:1", False),
        ("tcp:1.1.1.1:1", "tcp:1.1.1.1:1", True),
        ("tcp:1.1.1.1:1", "tcp:1.1.1.2:1", False),
        ("tcp:1.1.1.1:1", "tcp:1.1.1.1:2", False),
        ("tcp:0.0.0.0:1", "tcp:1.1.1.2:1", True),
        ("tcp:1.1.1.1:1", "tcp:[::]:1", True),
    ],
)
def test_overlap(one: str, other: str, answer: bool) -> None:
    assert addresses.overlap(addresses.listen_address(one), addresses.listen_address(other)) is answer


@pytest.mark.parametrize(
    ("deliver", "listen", "dual", "answer"),
    [
        ("localhost:1", "127.0.0.1:1", True, True),
        ("LocalHost:1", "[::1]:1", True, True),
        ("db.localhost:1", "0.0.0.0:1", True, True),
        ("localhost:1", "10.0.0.1:1", True, False),
        # An address of its own for each service: none is what localhost stands for.
        ("localhost:1", "127.0.0.2:1", True, False),
        ("db.localhost:1", "127.1.0.1:1", True, False),
        ("localhost:2", "127.0.0.1:1", True, False),
        ("127.0.0.9:1", "0.0.0.0:1", True, True),
        ("127.0.0.9:1", "[::]:1", True, True),
        ("127.0.0.9:1", "[::]:1", False, False),
        ("[::1]:1", "[::]:1", False, True),
        ("[::1]:1", "0.0.0.0:1", True, False),
        ("[::ffff:127.0.0.1]:1", "127.0.0.1:1", True, True),
        # Whether that address is this machine's only the machine knows.
        ("10.0.0.9:1", "0.0.0.0:1", True, False),
        ("host-b:1", "0.0.0.0:1", True, False),
    ],
)
def test_reaches(deliver: str, listen: str, dual: bool, answer: bool) -> None:
    one, listener = addresses.deliver_address(f"tcp:{deliver}"), addresses.ip_port(listen)
    assert addresses.reaches(addresses.same_place(one), addresses.same_place(listener), dual=dual) is answer


def test_same_place(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "far").symlink_to(tmp_path / "link")
    spellings = [f"unix:{tmp_path}/{way}/s" for way in ("real", "link", "far", "/real", "link//")]
    places = {addresses.same_place(addresses.listen_address(spelling)) for spelling in spellings}
    assert places == {addresses.UnixAddress(f"{os.path.realpath(real)}/s")}
    # The last name is the socket's own: a link there is another file.
    (real / "t").symlink_to("s")
    assert addresses.same_place(addresses.UnixAddress(f"{real}/t")) not in places
    missing = addresses.UnixAddress("/no/such/directory/s")
    assert addresses.same_place(missing) == missing


def test_the_same_place_on_another_interface() -> None:
    places = {addresses.same_place(addresses.ip_port(f"[fe80::1%{scope}]:1")) for scope in ("eth0", "Eth0", "ETH0")}
    assert len(places) == 3
    assert addresses.same_place(addresses.ip_port("[fe80::1%1]:1")) == addresses.ip_port("[fe80::1%lo]:1")
    assert addresses.same_place(addresses.ip_port("[fe80::1%99999]:1")) == addresses.ip_port("[fe80::1%99999]:1")


@pytest.mark.failure("34")
@pytest.mark.parametrize(
    ("host", "place"),
    [
        ("10.0.0.1", ("10.0.0.1", 80)),
        ("fd00::1", ("fd00::1", 80)),
        ("fe80::1%lo", ("fe80::1", 80, 0, 1)),
        ("fe80::1%1", ("fe80::1", 80, 0, 1)),
        ("fe80::1%77", ("fe80::1", 80, 0, 77)),
    ],
)
def test_as_the_kernel_takes_it(host: str, place: tuple[object, ...]) -> None:
    assert addresses.socket_address(host, 80) == place


@pytest.mark.failure("34")
def test_an_interface_that_this_machine_does_not_have() -> None:
    with pytest.raises(OSError, match="this machine has no interface nosuch0"):
        addresses.socket_address("fe80::1%nosuch0", 80)


@pytest.mark.failure("34")
@pytest.mark.parametrize("text", ["[fe80::1%eth0]:7600", "[fe80::1%2]:7600"])
def test_what_other_machines_are_told(text: str) -> None:
    with pytest.raises(ValueError, match="whose interface means nothing on other machines"):
        addresses.unscoped(text, addresses.ip_port(text))
    plain = addresses.ip_port("[fe80::1]:7600")
    assert addresses.unscoped("[fe80::1]:7600", plain) == plain


@pytest.mark.parametrize("reader", READERS)
@given(
    raw=st.none()
    | st.integers()
    | st.text()
    | st.text().map("unix:".__add__)
    | st.text(alphabet="tcp:[]%.0a").map("tcp:".__add__)
)
def test_readers_raise_one_printable_line_and_nothing_else(reader: object, raw: object) -> None:
    try:
        address = reader(raw)  # type: ignore[operator]
    except ValueError as error:
        assert "; allowed: " in str(error)
        assert str(error).isprintable()
    else:
        assert reader in READERS[:2] or reader is READERS[4] or reader(str(address)) == address  # type: ignore[operator]


@pytest.mark.parametrize(
    ("host", "answer"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("192.0.2.77", False), ("::1", True), ("fd00:dead::1", False),
     ("fe80::dead%lo", False), ("fe80::1%nosuch0", False), ("a.name", False)],
)  # fmt: skip
def test_whether_a_socket_can_have_an_address(host: str, answer: bool) -> None:
    assert addresses.is_bindable(host) is answer
