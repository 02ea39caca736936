"""All spellings of an address that lead to one of the proxy's own sockets."""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from pathlib import Path

import pytest

from control.base.reading.addresses import TcpAddress, UnixAddress, deliver_address, ip_port
from proxy.config import loops
from proxy.config.loops import Places, addresses_of, exact, hosts_file, ways
from tests.tools.ownnet import in_own_network

UPSTREAM = ("upstreams", "x", "listen")


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "hosts"
    file.write_text("127.0.0.1 localhost\n10.9.0.1 here.test Also-Here\n::1 six.test # and.not.this\nbad here.test\n")
    monkeypatch.setattr(loops, "HOSTS", str(file))
    return file


def found(listen: str, deliver: str) -> bool:
    places = Places([(UPSTREAM, ip_port(listen))])
    return places.reached_by(deliver_address(f"tcp:{deliver}")) == UPSTREAM


@pytest.mark.failure("28")
@pytest.mark.parametrize(
    ("listen", "deliver"),
    [
        ("0.0.0.0:1", "127.0.0.1:1"),
        ("0.0.0.0:1", "127.3.2.1:1"),
        ("0.0.0.0:1", "localhost:1"),
        ("0.0.0.0:1", "[::ffff:127.0.0.1]:1"),
        ("[::]:1", "127.0.0.1:1"),
        ("[::]:1", "[::1]:1"),
        ("[::]:1", "[::ffff:127.0.0.1]:1"),
        ("10.9.0.1:1", "here.test:1"),
        ("10.9.0.1:1", "HERE.test:1"),
        ("10.9.0.1:1", "also-here:1"),
        ("[::1]:1", "six.test:1"),
        ("10.9.0.1:1", "10.9.0.1:1"),
    ],
)
def test_found(hosts: Path, listen: str, deliver: str) -> None:
    assert found(listen, deliver)


@pytest.mark.failure("28")
@pytest.mark.parametrize(
    ("listen", "deliver"),
    [
        ("0.0.0.0:1", "127.0.0.1:2"),
        ("127.0.0.1:1", "127.0.0.2:1"),
        ("10.9.0.1:1", "10.9.0.2:1"),
        ("0.0.0.0:1", "192.0.2.1:1"),
        ("[::]:1", "[2001:db8::1]:1"),
        ("10.9.0.1:1", "elsewhere.test:1"),
        ("10.9.0.1:1", "and.not.this:1"),
        ("0.0.0.0:1", "[::1]:1"),
    ],
)
def test_left_alone(hosts: Path, listen: str, deliver: str) -> None:
    assert not found(listen, deliver)


@pytest.mark.netns
@pytest.mark.failure("28")
def test_addresses_of_this_machine(hosts: Path) -> None:
    def work() -> list[bool]:
        return [
            found("0.0.0.0:1", "10.9.0.1:1"),
            found("[::]:1", "10.9.0.1:1"),
            found("[::]:1", "[fd09::1]:1"),
            found("0.0.0.0:1", "here.test:1"),
            found("0.0.0.0:1", "10.9.0.2:1"),
            found("[::]:1", "[fd09::2]:1"),
        ]

    add = ("ip address add 10.9.0.1/24 dev lo", "ip address add fd09::1/64 dev lo nodad")
    assert in_own_network(work, *add, settings={"ipv4/ip_nonlocal_bind": "1"})[:4] == [True] * 4
    assert in_own_network(work) == [False] * 6, "on another machine they are others'"


def unix(listen: Path, deliver: Path) -> bool:
    places = Places([(UPSTREAM, UnixAddress(str(listen)))])
    return places.reached_by(UnixAddress(str(deliver))) == UPSTREAM


@pytest.mark.failure("28")
def test_unix_sockets_by_another_way(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "way").symlink_to("real")
    (tmp_path / "alias.sock").symlink_to(real / "x.sock")
    (tmp_path / "far.sock").symlink_to("alias.sock")
    (tmp_path / "through.sock").symlink_to("way/x.sock")
    for name in ("real/x.sock", "way/x.sock", "alias.sock", "far.sock", "through.sock"):
        assert unix(real / "x.sock", tmp_path / name), name
    assert not unix(real / "x.sock", real / "y.sock")
    assert not unix(real / "x.sock", tmp_path / "x.sock")
    assert unix(Path("/no/such/x.sock"), Path("/no/such/x.sock"))


@pytest.mark.netns
@pytest.mark.failure("28")
def test_a_directory_that_is_mounted_twice(tmp_path: Path) -> None:
    for name in ("real", "mounted"):
        (tmp_path / name).mkdir()
    mount = ctypes.CDLL(None, use_errno=True)
    real, mounted = (os.fsencode(tmp_path / name) for name in ("real", "mounted"))
    assert mount.mount(real, mounted, None, 4096, None) == 0, os.strerror(ctypes.get_errno())  # MS_BIND
    try:
        assert unix(tmp_path / "real" / "x.sock", tmp_path / "mounted" / "x.sock")
    finally:
        mount.umount2(mounted, 2)  # MNT_DETACH
    assert not unix(tmp_path / "real" / "x.sock", tmp_path / "mounted" / "x.sock")


def test_ways(hosts: Path) -> None:
    assert list(ways(TcpAddress("here.test", 1))) == [TcpAddress("here.test", 1), TcpAddress("10.9.0.1", 1)]
    assert list(ways(TcpAddress("10.0.0.1", 1))) == [TcpAddress("10.0.0.1", 1)]


def test_exact(tmp_path: Path) -> None:
    assert exact(TcpAddress("Host", 1)) == TcpAddress("host", 1)
    here = exact(UnixAddress(f"{tmp_path}/s"))
    assert isinstance(here, UnixAddress)
    assert here.path.endswith(f":{tmp_path.stat().st_ino}/s")


def test_no_hosts_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "HOSTS", "/no/such/file")
    assert hosts_file("localhost") == []


def test_names_that_the_c_library_knows() -> None:
    assert set(addresses_of(["localhost", "no-such-name.invalid."], 10)["localhost"]) <= {"127.0.0.1", "::1"}


def test_names_without_an_answer_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(name: str, *rest: object, **more: object) -> list[object]:
        if name.startswith("silent"):
            waiting.wait(20)
        return [(0, 0, 0, "", ("127.0.0.1", 0))]

    waiting = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", ask)
    assert addresses_of(["silent-1", "here", "silent-2"], 0.2).get("silent-1") is None
    waiting.set()
