"""A proxy knows its own connections again, by address and by name, and how often their calls have come round."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from proxy.mux.frames import Via
from proxy.pump.ourselves import OwnConnections, caller_of, is_loopback, name_for, plain, via_unix


@pytest.mark.failure("28")
@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_a_caller_that_is_our_own_connection(host: str, family: socket.AddressFamily) -> None:
    own = OwnConnections()
    with socket.create_server((host, 0), family=family) as listener:
        with socket.create_connection(listener.getsockname()[:2]) as ours, listener.accept()[0] as accepted:
            assert own.after(caller_of(accepted)) == 0
            source = own.add(ours, 2)
            assert own.after(caller_of(accepted)) == 3
            own.drop(source)
            own.drop(source)
            own.drop(None)
            assert own.after(caller_of(accepted)) == 0
    assert own.after(None) == 0


@pytest.mark.failure("28")
def test_ipv4_at_an_ipv6_socket() -> None:
    own = OwnConnections()
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        there = ("127.0.0.1", listener.getsockname()[1])
        with socket.create_connection(there) as ours, listener.accept()[0] as accepted:
            own.add(ours, 0)
            assert accepted.getpeername()[0] == "::ffff:127.0.0.1"
            assert own.after(caller_of(accepted)) == 1


@pytest.mark.failure("28")
def test_hops_of_a_call_from_another_host() -> None:
    own = OwnConnections()
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as ours:
        host, port = own.add(ours, 2)
        assert own.passed(Via(0)) == own.passed(Via(0, ("10.0.0.2", port))) == 0
        assert own.passed(Via(4, ("10.0.0.2", port))) == 4
        assert own.passed(Via(1, (host, port))) == 3


@pytest.mark.failure("28")
def test_two_connections_with_one_near_end() -> None:
    """To different services. The one that ends first takes nothing of the other one with it, how often ever."""
    own = OwnConnections()
    with socket.create_server(("127.0.0.1", 0)) as web, socket.create_server(("127.0.0.1", 0)) as db:
        with socket.socket() as first, socket.socket() as second:
            for sock in (first, second):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            first.bind(("127.0.0.1", 0))
            second.bind(first.getsockname())
            first.connect(web.getsockname())
            second.connect(db.getsockname())
            first_end, second_end = own.add(first, 1), own.add(second, 4)
            assert first_end == second_end
            assert (own.after(first_end), len(own)) == (5, 2)
            own.drop(second_end)
            own.drop(second_end)
            assert (own.after(first_end), len(own)) == (2, 1)
            own.drop(first_end)
            assert (own.after(first_end), len(own)) == (0, 0)


def test_one_spelling() -> None:
    assert plain(("fe80::1%eth0", 1, 0, 2)) == plain(("fe80::1%wlan0", 1, 0, 3)) == ("fe80::1", 1)
    assert plain(("::ffff:10.0.0.1", 1, 0, 0)) == plain(("10.0.0.1", 1)) == ("10.0.0.1", 1)


def test_a_caller_that_is_gone() -> None:
    with socket.socket() as sock:
        assert caller_of(sock) is None


@pytest.mark.parametrize(
    ("host", "answer"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("10.0.0.1", False), ("fe80::1", False)],
)
def test_loopback(host: str, answer: bool) -> None:
    assert is_loopback(host) is answer


@pytest.mark.failure("28")
@pytest.mark.parametrize("hops", [None, 1, 4, 255])
def test_a_unix_connection_bears_its_hops_in_its_name(tmp_path: Path, hops: int | None) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as ours:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        if hops is not None:
            ours.bind(name_for(hops))
        ours.connect(str(tmp_path / "s"))
        with listener.accept()[0] as accepted:
            assert via_unix(accepted) == Via((hops or 0) + 1)


def test_a_unix_connection_with_another_name(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as ours:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        ours.bind(str(tmp_path / "name-7"))
        ours.connect(str(tmp_path / "s"))
        with listener.accept()[0] as accepted:
            assert via_unix(accepted) == Via(1)


def test_names_are_given_once() -> None:
    assert len({name_for(1) for _ in range(100)}) == 100
