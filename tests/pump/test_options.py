from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from proxy.config.schema import TcpConfig
from proxy.demo.lab import Lab
from proxy.pump import options
from proxy.pump.options import KeepAlive, bound_send_buffer, disarm_reset, keep_alive, peer_uid, prepare_local
from tests.tools.sockets import eventually

NODELAY = (socket.IPPROTO_TCP, socket.TCP_NODELAY)
SENT = bytes(range(256)) * 4096


@contextmanager
def tcp_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as client, listener.accept()[0] as accepted:
            client.settimeout(20)
            accepted.settimeout(20)
            yield client, accepted


def fill(sock: socket.socket) -> int:
    """Send ``SENT`` until the kernel takes no more; returns the bytes that it took."""
    sock.setblocking(False)
    taken = 0
    while taken < len(SENT):
        try:
            taken += sock.send(memoryview(SENT)[taken:])
        except BlockingIOError:
            break
    return taken


def read_all(sock: socket.socket) -> bytes:
    """Until the end. Raises ConnectionResetError if that is a reset."""
    received = bytearray()
    while piece := sock.recv(65536):
        received += piece
    return bytes(received)


# ------------------------------------------------------------------------------------------------------------ closing


@pytest.mark.failure(3)
def test_closed_without_more_ado_a_tcp_socket_resets() -> None:
    with tcp_pair() as (ours, theirs):
        prepare_local(ours)
        ours.sendall(b"half a mess")
        ours.close()
        with pytest.raises(ConnectionResetError):
            read_all(theirs)


@pytest.mark.failure(2)
def test_disarmed_it_ends_cleanly_with_every_byte_delivered() -> None:
    """Also those that were still in our kernel when it was closed."""
    with tcp_pair() as (ours, theirs):
        prepare_local(ours)
        taken = fill(ours)
        disarm_reset(ours)
        ours.close()
        assert read_all(theirs) == SENT[:taken]


@pytest.mark.failure(2)
def test_half_close_is_clean_while_the_reset_is_armed() -> None:
    with tcp_pair() as (ours, theirs):
        prepare_local(ours)
        ours.sendall(b"request")
        ours.shutdown(socket.SHUT_WR)
        assert read_all(theirs) == b"request"
        theirs.sendall(b"response")
        theirs.close()
        assert read_all(ours) == b"response"


@pytest.mark.failure(3)
def test_closed_armed_after_a_half_close_it_still_resets() -> None:
    """So an abort after our end was sent is told apart from one that went well, until both ends are through."""
    with tcp_pair() as (ours, theirs):
        prepare_local(ours)
        ours.shutdown(socket.SHUT_WR)
        assert read_all(theirs) == b""
        ours.close()
        with pytest.raises(ConnectionError):
            for _ in range(2):
                theirs.sendall(b"x")


HOLDER = """
import socket, sys
from proxy.pump.options import disarm_reset, prepare_local
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
prepare_local(sock)
if sys.argv[2] == "disarmed":
    disarm_reset(sock)
sock.sendall(b"half a mess.")
sys.stdin.read()
"""


def killed(how: str) -> bytes:
    """What the peer of a process reads that held a connection and was killed with kill -9."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        argv = [sys.executable, "-c", HOLDER, str(listener.getsockname()[1]), how]
        with subprocess.Popen(argv, stdin=subprocess.PIPE) as process:
            listener.settimeout(20)
            peer, _ = listener.accept()
            with peer:
                peer.settimeout(20)
                assert peer.recv(12, socket.MSG_WAITALL) == b"half a mess."
                process.kill()
                process.wait()
                return read_all(peer)


@pytest.mark.failure(3)
def test_a_killed_proxy_leaves_resets_behind() -> None:
    with pytest.raises(ConnectionResetError):
        killed("armed")


def test_without_the_option_the_same_would_look_like_a_clean_end() -> None:
    assert killed("disarmed") == b""


# -------------------------------------------------------------------------------------------------------- other options


def test_tcp_sends_small_messages_at_once() -> None:
    with tcp_pair() as (ours, _):
        prepare_local(ours)
        assert ours.getsockopt(*NODELAY) == 1


def test_sockets_accepted_from_a_prepared_listener_are_prepared() -> None:
    """From birth, before anybody has called accept."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        prepare_local(listener)
        with socket.create_connection(listener.getsockname()) as client:
            accepted, _ = listener.accept()
            assert accepted.getsockopt(*NODELAY) == 1
            accepted.close()
            with pytest.raises(ConnectionResetError):
                client.recv(1)


def test_unix_sockets_are_left_as_they_are() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        options = [(socket.SOL_SOCKET, option) for option in (socket.SO_SNDBUF, socket.SO_RCVBUF, socket.SO_LINGER)]
        before = [ours.getsockopt(*option) for option in options]
        prepare_local(ours)
        disarm_reset(ours)
        assert [ours.getsockopt(*option) for option in options] == before
        ours.sendall(b"bytes")
        ours.close()
        assert read_all(theirs) == b"bytes"


@pytest.mark.failure("33")
@pytest.mark.parametrize("size", [8 * 1024, 32 * 1024])
def test_the_kernel_holds_no_more_than_it_is_told(size: int) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        bound_send_buffer(ours, size)
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == size
        ours.setblocking(False)
        sent = 0
        with pytest.raises(BlockingIOError):
            while True:
                sent += ours.send(bytes(65536))
        assert size // 4 < sent <= size


def test_peer_uid_of_a_unix_socket() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_uid(ours) == os.geteuid()


@pytest.mark.skipif(os.geteuid() != 0, reason="not root (another user's process needs it)")
def test_peer_uid_is_the_callers() -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(f"\0hostlane-test-peer-uid-{os.getpid()}")
        listener.listen()
        os.seteuid(65534)
        try:
            client.connect(listener.getsockname())
        finally:
            os.seteuid(0)
        with listener.accept()[0] as accepted:
            assert peer_uid(accepted) == 65534


# ---------------------------------------------------------------------------------------------------------- keepalive


def keepalive_of(sock: socket.socket) -> KeepAlive | None:
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE):
        return None
    names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    return KeepAlive(*(sock.getsockopt(socket.IPPROTO_TCP, name) for name in names))


@pytest.mark.failure("29")
@pytest.mark.parametrize("settings", [KeepAlive(60, 15, 4), KeepAlive(1, 1, 1), KeepAlive(3600, 3600, 127), None])
def test_the_kernel_probes_a_silent_connection(settings: KeepAlive | None) -> None:
    with tcp_pair() as (ours, _):
        keep_alive(ours, KeepAlive(5, 5, 5))
        keep_alive(ours, settings)
        assert keepalive_of(ours) == settings


@pytest.mark.failure("29")
def test_what_a_listener_has_its_callers_inherit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        prepare_local(listener)
        keep_alive(listener, KeepAlive(7, 3, 2))
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            assert keepalive_of(accepted) == KeepAlive(7, 3, 2)


def test_a_unix_socket_has_none() -> None:
    one, other = socket.socketpair()
    with one, other:
        keep_alive(one, KeepAlive(7, 3, 2))
        assert not one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_as_configured() -> None:
    assert KeepAlive.of(TcpConfig()) == KeepAlive(60, 15, 4)
    assert KeepAlive.of(TcpConfig(keepalive_idle=None)) is None


@pytest.mark.failure("28")
def test_a_caller_that_is_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = socket.socketpair()
    with one, other:
        assert peer_uid(one) == os.getuid()
        monkeypatch.setattr(options, "own_pid", os.getpid() + 1)
        assert peer_uid(one) == os.getuid()
        with options.knowing_ourselves():
            assert peer_uid(one) == options.OURSELVES
        assert peer_uid(one) == os.getuid()


@pytest.mark.netns
def test_silence_is_what_nobody_acknowledges(lab: Lab) -> None:
    with lab.b.socket() as listener, lab.a.socket() as ours:
        listener.bind((lab.b.address, 0))
        listener.listen()
        ours.connect(listener.getsockname())
        there, _ = listener.accept()
        with there:
            ours.sendall(b"heard")
            assert there.recv(5) == b"heard"
            assert options.silence(ours) is None
            lab.b.cable_down()
            try:
                began = time.monotonic()
                ours.sendall(b"lost")
                eventually(lambda: options.silence(ours) is not None, "silence")
                silent = options.silence(ours)
                assert silent is not None
                assert 0 < silent <= time.monotonic() - began + 60
            finally:
                lab.b.cable_up()
            eventually(lambda: options.silence(ours) is None, "it is heard again")
    one, other = socket.socketpair()
    with one, other:
        assert options.silence(one) is None
    assert options.silence(one) is None  # closed


def test_retransmits_of_a_tcp_connection() -> None:
    with tcp_pair() as (ours, _):
        assert options.retransmits(ours) == 0
    one, other = socket.socketpair()
    with one, other:
        assert options.retransmits(one) == 0
    assert options.retransmits(one) == 0  # closed
