"""Source ports: used again while they are in TIME_WAIT, missing, and met by their own connection."""

from __future__ import annotations

import errno
import resource
import select
import socket
from collections import Counter
from contextlib import closing
from itertools import count

import pytest

from proxy.pump.options import KeepAlive, LocalSocket, disarm_reset
from proxy.pump.sourceport import LACKS, LocalShortage, failure, met_itself, start
from tests.tools.ownnet import in_own_network
from tests.tools.sockets import PATIENCE, fds_since, open_fds

FAR = {4: "10.9.0.1", 6: "fd09::1"}
"""Addresses of this machine that are no loopback ones: what is done for those alone must not be what is seen here."""
ADD = ("ip address add 10.9.0.1/32 dev lo", "ip address add fd09::1/128 dev lo nodad")
TEN = {"ipv4/ip_local_port_range": "40000 40009"}
TIMES = 60


def connected(sock: LocalSocket) -> int:
    """The error number that connecting came to, once it has."""
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLOUT)
    assert poll.poll(PATIENCE * 1000)
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def listener(host: str, port: int = 0) -> socket.socket:
    return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


def end_from_our_side(ours: LocalSocket, service: socket.socket, said: bytes = b"") -> None:
    """A clean end that we begin, so that the port is in TIME_WAIT afterwards."""
    accepted, _ = service.accept()
    with accepted:
        disarm_reset(ours)
        ours.shutdown(socket.SHUT_WR)
        accepted.settimeout(PATIENCE)
        assert b"".join(iter(lambda: accepted.recv(64), b"")) == said
    poll = select.poll()
    poll.register(ours.fileno(), select.POLLIN)
    assert poll.poll(PATIENCE * 1000)
    assert ours.recv(1) == b""
    ours.close()


def plain(host: str, port: int) -> LocalSocket:
    """How connections were made before: they get the kernel's next port, and no other."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        sock.connect((host, port))
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


@pytest.mark.netns
@pytest.mark.failure("29")
@pytest.mark.parametrize("version", [4, 6])
def test_ports_in_time_wait_are_used_again(version: int) -> None:
    def work() -> int:
        with listener(FAR[version]) as service:
            port = service.getsockname()[1]
            for _ in range(TIMES):
                sock = start(FAR[version], port, None)
                assert connected(sock) == 0
                assert not met_itself(sock)
                sock.send(b"whole")
                end_from_our_side(sock, service, b"whole")
        return TIMES

    assert in_own_network(work, *ADD, settings=TEN) == TIMES


@pytest.mark.netns
@pytest.mark.parametrize("version", [4, 6])
def test_the_kernel_alone_would_run_out_of_them(version: int) -> None:
    """Or the test above shows nothing."""

    def work() -> int:
        with listener(FAR[version]) as service:
            for done in count():
                try:
                    sock = plain(FAR[version], service.getsockname()[1])
                except OSError as error:
                    assert error.errno == errno.EADDRNOTAVAIL
                    return done
                end_from_our_side(sock, service)
        raise AssertionError

    assert in_own_network(work, *ADD, settings=TEN) <= 10


@pytest.mark.netns
@pytest.mark.failure("29")
@pytest.mark.parametrize("version", [4, 6])
def test_no_port_at_all_is_this_host_s_shortage(version: int) -> None:
    """All are in use by connections that are open: none of them may be touched."""

    def work() -> str:
        with listener(FAR[version]) as service:
            port = service.getsockname()[1]
            held = []
            with pytest.raises(LocalShortage) as raised:
                for _ in range(TIMES):
                    held.append(start(FAR[version], port, None))
            assert [connected(sock) for sock in held] == [0] * len(held)
            for sock in held:
                sock.close()
            return f"{len(held) <= 10} {raised.value.strerror}".replace(str(port), "PORT")

    where = {4: "10.9.0.1:PORT", 6: "[fd09::1]:PORT"}[version]
    assert in_own_network(work, *ADD, settings=TEN) == f"True this host has no source port left towards {where}"


MORE = {4: ["10.9.0.2", "10.9.0.3"], 6: ["fd09::2", "fd09::3"]}
ADD_MORE = (
    *ADD,
    *(f"ip address add {host}/32 dev lo" for host in MORE[4]),
    *(f"ip address add {host}/128 dev lo nodad" for host in MORE[6]),
)


@pytest.mark.netns
@pytest.mark.failure("29")
@pytest.mark.parametrize("version", [4, 6])
def test_each_source_address_has_all_ports(version: int) -> None:
    """Those of the other family are passed over, and one that no interface has."""

    def work() -> tuple[bool, dict[str, bool], str]:
        with listener(FAR[version]) as service:
            port = service.getsockname()[1]
            held: list[LocalSocket] = []
            sources = [*MORE[4], *MORE[6], "10.9.9.9", "fd09::9:9"]
            with pytest.raises(LocalShortage) as raised:
                for _ in range(TIMES):
                    held.append(start(FAR[version], port, None, sources))
            assert [connected(sock) for sock in held] == [0] * len(held)
            used = Counter(sock.getsockname()[0] for sock in held)
            for sock in held:
                sock.close()
            said = str(raised.value.strerror).replace(str(port), "PORT")
            return len(held) > 10, {host: 5 < count <= 10 for host, count in used.items()}, said

    many, used, said = in_own_network(work, *ADD_MORE, settings=TEN)
    assert many
    assert used == dict.fromkeys(MORE[version], True)
    assert said.startswith("this host has no source port left towards ")


@pytest.mark.netns
@pytest.mark.failure("29")
def test_a_source_that_no_interface_has_is_this_host_s_shortage() -> None:
    def work() -> OSError:
        with listener(FAR[4]) as service, pytest.raises(LocalShortage) as raised:
            start(FAR[4], service.getsockname()[1], None, ["10.9.9.9", "10.9.9.8"])
        return raised.value

    before = open_fds()
    found = in_own_network(work, *ADD)
    assert found.strerror == "no interface of this host has 10.9.9.8 or 10.9.9.9, to connect from"
    assert not fds_since(before)


@pytest.mark.netns
@pytest.mark.failure("29")
def test_ports_in_time_wait_are_used_again_from_each_source() -> None:
    def work() -> int:
        with listener(FAR[4]) as service:
            for _ in range(TIMES):
                sock = start(FAR[4], service.getsockname()[1], None, MORE[4])
                assert connected(sock) == 0
                end_from_our_side(sock, service)
        return TIMES

    assert in_own_network(work, *ADD_MORE, settings=TEN) == TIMES


@pytest.mark.netns
@pytest.mark.failure("29")
def test_without_timestamps_no_port_is_used_again_too_early() -> None:
    """Late segments of the old connection could not be told apart: a shortage is better."""

    def work() -> int:
        with listener(FAR[4]) as service:
            for done in count():
                try:
                    sock = start(FAR[4], service.getsockname()[1], None)
                except LocalShortage:
                    return done
                assert connected(sock) == 0
                end_from_our_side(sock, service)
        raise AssertionError

    assert in_own_network(work, *ADD, settings={**TEN, "ipv4/tcp_timestamps": "0"}) <= 10


@pytest.mark.netns
@pytest.mark.failure("29")
def test_ports_that_are_reserved_for_services_are_left_to_them() -> None:
    def work() -> set[int]:
        seen = set()
        with listener(FAR[4]) as service:
            for _ in range(TIMES):
                sock = start(FAR[4], service.getsockname()[1], None)
                assert connected(sock) == 0
                seen.add(sock.getsockname()[1])
                end_from_our_side(sock, service)
        return seen

    settings = {**TEN, "ipv4/ip_local_reserved_ports": "40000-40003,40005"}
    assert in_own_network(work, *ADD, settings=settings) <= {40004, 40006, 40007, 40008, 40009}


@pytest.mark.netns
@pytest.mark.failure("29")
def test_an_address_that_this_host_cannot_reach_is_no_shortage() -> None:
    """The same error number as for ports: here no port would help."""

    def work() -> OSError:
        with pytest.raises(OSError) as raised:
            start("::1", 8080, None)
        return raised.value

    found = in_own_network(work, settings={"ipv6/conf/all/disable_ipv6": "1"})
    assert (found.errno, found.strerror) == (errno.EADDRNOTAVAIL, "Cannot assign requested address")
    assert not isinstance(found, LocalShortage)


@pytest.mark.netns
@pytest.mark.failure("29")
@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 40000), ("::1", 40000), ("10.9.0.1", 40000)])
def test_a_connection_that_met_itself_is_known_and_frees_the_port(host: str, port: int) -> None:
    """There is one port to come from, and it is the one that is called: the surest of coincidences."""

    def work() -> bool:
        sock = start(host, port, None)
        assert connected(sock) == 0, "this kernel does not connect a socket to itself"
        known = met_itself(sock)
        sock.close()
        with listener(host, port) as service:  # it sets SO_REUSEADDR, as services do
            return known and service.getsockname()[1] == port

    assert in_own_network(work, *ADD, settings={"ipv4/ip_local_port_range": f"{port} {port}"})


@pytest.mark.failure("29")
def test_a_service_can_listen_on_a_port_that_a_connection_of_ours_comes_from() -> None:
    """It was down when we got its port, and sets SO_REUSEADDR, as services do."""
    with listener("127.0.0.1") as other:
        with closing(start("127.0.0.1", other.getsockname()[1], None)) as sock:
            assert connected(sock) == 0
            assert not met_itself(sock)
            port = sock.getsockname()[1]
            with listener("127.0.0.1", port) as service:
                assert service.getsockname()[1] == port


def test_its_options() -> None:
    with listener("127.0.0.1") as service:
        with closing(start("127.0.0.1", service.getsockname()[1], KeepAlive(7, 3, 2))) as sock:
            assert not sock.getblocking()
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7


def test_refused() -> None:
    with listener("127.0.0.1") as service:
        port = service.getsockname()[1]
    with closing(start("127.0.0.1", port, None)) as sock:
        assert connected(sock) == errno.ECONNREFUSED


@pytest.mark.netns
@pytest.mark.failure("29")
@pytest.mark.parametrize("scope", ["near0", "INDEX"])
def test_a_neighbour_s_own_address(scope: str) -> None:
    """Each interface has a subnet fe80::/64 of its own; the ports on the way there run out and are used again, too."""

    def work() -> int:
        index = socket.if_nametoindex("near0")
        with socket.socket(socket.AF_INET6) as service:
            service.bind(("fe80::9", 0, 0, index))
            service.listen()
            host = f"fe80::9%{index if scope == 'INDEX' else scope}"
            for _ in range(TIMES):
                sock = start(host, service.getsockname()[1], None)
                assert connected(sock) == 0
                end_from_our_side(sock, service)
        return TIMES

    commands = ("link add near0 type veth peer name far0", "link set near0 up", "link set far0 up",
                "-6 address add fe80::9/64 dev near0 nodad")  # fmt: skip
    assert in_own_network(work, *(f"ip {command}" for command in commands), settings=TEN) == TIMES


def test_a_scope_that_does_not_exist() -> None:
    with pytest.raises(OSError, match="Invalid argument|No such device"):
        start("fe80::1%nosuch0", 8080, None)


@pytest.mark.failure("29")
def test_no_descriptor_is_this_host_s_shortage() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        with pytest.raises(LocalShortage, match="this proxy has no descriptor left"):
            start("127.0.0.1", 8080, None)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_whose_failure_it_is() -> None:
    assert all(isinstance(failure(code), LocalShortage) for code in LACKS)
    for code in (errno.ECONNREFUSED, errno.ENOENT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT):
        assert not isinstance(failure(code), LocalShortage)
