"""Sockets from systemd: matched by address, and one line for each that fits nothing."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from control.base.reading.addresses import Address, TcpAddress, UnixAddress
from proxy.agent.handover import activation
from proxy.agent.handover.activation import PassedSockets
from proxy.agent.handover.fdstore import name_of
from proxy.agent.handover.inheritance import InheritedListeners
from proxy.config.schema import Config, UpstreamConfig, parse
from proxy.errors import ConfigError
from proxy.outbound.sockets import OpenListener
from tests.tools.sockets import fds_since, free_port, open_fds

FIRST = 600


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hl-") as found:
        yield Path(found)


@pytest.fixture(autouse=True)
def first(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """3 is in use here."""
    monkeypatch.setattr(activation, "FIRST", FIRST)
    yield
    for number in range(FIRST, FIRST + 10):
        try:
            os.close(number)
        except OSError:
            break


def config(folder: Path, links: str = "127.0.0.1:7600", tcp: str = "tcp:127.0.0.1:7700") -> Config:
    upstreams: dict[str, Any] = {"redis": {"listen": f"unix:{folder}/redis.sock"}, "web": {"listen": tcp}}
    peers = {"host-b": {"address": "127.0.0.2:7600", "services": ["redis", "web"]}}
    sections = {"host": "host-a", "links": {"listen": links, "security": "none"}}
    return parse(json.dumps({**sections, "peers": peers, "upstreams": upstreams}), "f")


def environment(count: object, names: str = "", pid: int | None = None) -> dict[str, str]:
    return {
        "LISTEN_PID": str(os.getpid() if pid is None else pid),
        "LISTEN_FDS": str(count),
        "LISTEN_FDNAMES": names,
        "X": "y",
    }


def passed(*sockets: socket.socket) -> None:
    """Hand them over as systemd does: one behind the other, and inheritable."""
    for number, sock in enumerate(sockets):
        os.dup2(sock.fileno(), FIRST + number)
        sock.close()


def tcp(host: str = "127.0.0.1") -> tuple[socket.socket, int]:
    sock = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    return sock, sock.getsockname()[1]


def unix(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    return sock


def test_each_where_it_belongs(folder: Path) -> None:
    (web, web_port), (links, links_port) = tcp(), tcp()
    found = config(folder, f"127.0.0.1:{links_port}", f"tcp:127.0.0.1:{web_port}")
    passed(links, unix(folder / "redis.sock"), web)
    given, inheritance = environment(3, "links:redis:web"), InheritedListeners()
    systemd = PassedSockets(given)
    systemd.inherit(found, inheritance)
    assert given == {"X": "y"}, "processes that this one starts are not meant"
    assert not os.get_inheritable(FIRST)
    inheritables = inheritance.upstreams()
    assert list(inheritables) == [UnixAddress(f"{folder}/redis.sock"), TcpAddress("127.0.0.1", web_port)]
    sock = inheritance.links(found.links.listen)
    assert sock is not None
    assert sock.getsockname() == ("127.0.0.1", links_port)
    systemd.close()
    for inheritable in inheritables.values():
        assert inheritable.lock is None, "its file is systemd's"
        inheritable.close()
    sock.close()


def test_an_address_that_is_written_in_another_way(folder: Path) -> None:
    links, port = tcp("::1")
    found = config(folder, f"[0:0:0:0:0:0:0:1]:{port}")
    passed(links)
    inheritance = InheritedListeners()
    with closing(PassedSockets(environment(1))) as systemd:
        systemd.inherit(found, inheritance)
    sock = inheritance.links(found.links.listen)
    assert sock is not None
    sock.close()


@pytest.mark.parametrize("bound", ["::ffff:127.0.0.1", "127.0.0.1"])
@pytest.mark.parametrize("written", ["[::ffff:127.0.0.1]", "127.0.0.1", "[::FFFF:7f00:1]"])
def test_an_ipv4_address_as_ipv6_sockets_write_it(folder: Path, bound: str, written: str) -> None:
    web = socket.socket(socket.AF_INET6 if ":" in bound else socket.AF_INET)
    web.bind((bound, 0))
    web.listen()
    port = web.getsockname()[1]
    found = config(folder, tcp=f"tcp:{written}:{port}")
    passed(web)
    inheritance = InheritedListeners()
    with closing(PassedSockets(environment(1))) as systemd:
        systemd.inherit(found, inheritance)
    (listener,) = inheritance.upstreams().items()
    assert listener[0] == found.upstreams["web"].listen
    listener[1].close()


@pytest.mark.failure("24")
@pytest.mark.parametrize("kind", ["web", "links", "redis"])
def test_a_start_that_is_tried_again_finds_them_again(folder: Path, kind: str) -> None:
    """The process to take over from may end meanwhile. When a start has succeeded nothing else holds the socket."""
    sock, port = (unix(folder / "redis.sock"), 0) if kind == "redis" else tcp()
    settings = {"web": {"tcp": f"tcp:127.0.0.1:{port}"}, "links": {"links": f"127.0.0.1:{port}"}, "redis": {}}
    found, address = config(folder, **settings[kind]), sock.getsockname()
    family = sock.family
    passed(sock)
    given = environment(1)
    with closing(PassedSockets(given)) as systemd:
        for _ in range(2):
            failed = InheritedListeners()
            systemd.inherit(found, failed)
            failed.close()
        inheritance = InheritedListeners()
        systemd.inherit(found, inheritance)
        systemd.close()
        with pytest.raises(OSError):
            os.fstat(FIRST)
    with socket.socket(family) as caller:
        caller.connect(address)
    inheritance.close()
    with socket.socket(family) as caller, pytest.raises(ConnectionRefusedError):
        caller.connect(address)


def test_what_fits_nothing_is_a_line_each(folder: Path) -> None:
    stranger, port = tcp()
    unnamed = socket.socket(socket.AF_UNIX)
    unnamed.bind("")
    unnamed.listen()
    datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    deaf = socket.socket()
    passed(stranger, unnamed, datagrams, deaf, unix(folder / "redis.sock"), unix(folder / "other.sock"))
    inheritance = InheritedListeners()
    with pytest.raises(ConfigError) as caught:
        PassedSockets(environment(6, "stranger::dgram")).inherit(config(folder), inheritance)
    prefix = "environment: LISTEN_FDS: descriptor"
    place = "; allowed: what an upstream listens on, connect.listen or links.listen"
    assert caught.value.problems == [
        f"{prefix} {FIRST} (stranger): found tcp:127.0.0.1:{port}{place}",
        f"{prefix} {FIRST + 1}: found a Unix socket without a path; allowed: listening stream sockets",
        f"{prefix} {FIRST + 2} (dgram): found a socket that does not listen for connections; "
        "allowed: listening stream sockets",
        f"{prefix} {FIRST + 3}: found a socket that does not listen for connections; allowed: listening stream sockets",
        f"{prefix} {FIRST + 5}: found unix:{folder}/other.sock{place}",
    ]
    for number in range(6):
        with pytest.raises(OSError):
            os.fstat(FIRST + number)


def test_what_is_no_socket(folder: Path) -> None:
    with open(os.devnull) as file:
        os.dup2(file.fileno(), FIRST)
    with pytest.raises(ConfigError) as caught:
        PassedSockets(environment(2)).inherit(config(folder), InheritedListeners())
    assert [line.partition("found ")[2].partition(";")[0] for line in caught.value.problems] == ["no socket"] * 2


@pytest.mark.parametrize("count", ["", "three", "-1", "99999999"])
def test_a_number_that_is_none(folder: Path, count: str) -> None:
    with pytest.raises(
        ConfigError, match=rf'^environment: LISTEN_FDS: found "{count}"; allowed: a number up to 65536$'
    ):
        PassedSockets(environment(count)).inherit(config(folder), InheritedListeners())


@pytest.mark.parametrize("given", [{}, {"LISTEN_FDS": "3"}, environment(3, pid=1)])
def test_it_is_not_for_this_process(folder: Path, given: dict[str, str]) -> None:
    PassedSockets(given).inherit(config(folder), InheritedListeners())
    assert "LISTEN_FDS" not in given


def stored(*sockets: OpenListener) -> str:
    """Passed as systemd passes what a process has stored that has crashed since. Returns LISTEN_FDNAMES."""
    names = [name_of(str(each.upstream.listen), each.inheritable().birth) for each in sockets]
    passed(*(each.inheritable().sock.dup() for each in sockets))
    for each in sockets:
        each.leave()
    return ":".join(names)


def opened(listen: Address) -> OpenListener:
    return OpenListener.open("x", UpstreamConfig(listen=listen))


@pytest.mark.failure("24")
def test_what_an_earlier_process_has_stored(folder: Path) -> None:
    """It is this proxy's, and known by its name, also if nothing in the configuration fits it (yet)."""
    port = free_port()
    places = [UnixAddress(f"{folder}/redis.sock"), TcpAddress("127.0.0.1", port), UnixAddress(f"{folder}/more.sock")]
    names, inheritance = stored(*map(opened, places)), InheritedListeners()
    with closing(PassedSockets(environment(3, names))) as systemd:
        systemd.inherit(config(folder, tcp=f"tcp:127.0.0.1:{port}"), inheritance)
        assert systemd.stored == set(names.split(":"))
    found = inheritance.upstreams()
    assert list(found) == places
    for address, inheritable in found.items():
        assert not inheritable.kept
        assert (inheritable.lock is not None) == isinstance(address, UnixAddress)
        inherited = OpenListener.inherit(address, inheritable)
        inherited.own()
        inherited.close()
    assert list(folder.iterdir()) == []


@pytest.mark.failure("24")
@pytest.mark.parametrize("wanted", [True, False])
def test_a_long_name_is_known_from_the_configuration(folder: Path, wanted: bool) -> None:
    """The socket itself does not know it: it was bound to another one."""
    listen = UnixAddress(f"{folder}/{'n' * 70}.sock")
    names, inheritance = stored(opened(listen)), InheritedListeners()
    found = config(folder)
    if wanted:
        upstreams = {"redis": UpstreamConfig(listen=listen)}
        found = msgspec.structs.replace(found, upstreams=upstreams)
    with closing(PassedSockets(environment(1, names))) as systemd:
        systemd.inherit(found, inheritance)
    inherited = inheritance.upstreams()
    assert list(inherited) == ([listen] if wanted else [])
    for inheritable in inherited.values():
        inheritable.close()


@pytest.mark.failure("24")
def test_what_is_of_no_use_is_closed_and_named(folder: Path) -> None:
    """Files that are gone, or lead elsewhere; names that are another socket's."""
    gone, moved = opened(UnixAddress(f"{folder}/gone.sock")), opened(UnixAddress(f"{folder}/redis.sock"))
    names = stored(gone, moved)
    (folder / "gone.sock").unlink()
    (folder / "redis.sock").rename(folder / "elsewhere.sock")
    (folder / "redis.sock").touch()
    before, inheritance = open_fds(), InheritedListeners()
    systemd = PassedSockets(environment(2, names))
    systemd.inherit(config(folder), inheritance)
    assert systemd.stored == set(names.split(":"))
    assert not fds_since(before)
    systemd.close()
    assert inheritance.upstreams() == {}
    for names in (name_of("tcp:127.0.0.1:1", None), name_of(f"unix:{folder}/redis.sock", None)):
        passed(tcp()[0])
        with closing(PassedSockets(environment(1, names))) as systemd:
            systemd.inherit(config(folder), inheritance)
        assert inheritance.upstreams() == {}


@pytest.mark.failure("24")
def test_a_socket_unit_may_have_a_name_like_ours(folder: Path) -> None:
    passed(unix(folder / "redis.sock"))
    inheritance = InheritedListeners()
    with closing(PassedSockets(environment(1, "hostlane-redis.socket"))) as systemd:
        systemd.inherit(config(folder), inheritance)
        assert systemd.stored == set()
    [inheritable] = inheritance.upstreams().values()
    assert inheritable.kept
    inheritable.close()
