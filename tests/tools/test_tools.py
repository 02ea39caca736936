"""Tools that lie make tests that lie."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.config.schema import load
from proxy.demo.lab import Lab
from tests.tools import sockets
from tests.tools.mesh import SERVICE, Mesh
from tests.tools.process import Process
from tests.tools.servers import Echo, Listener
from tests.tools.sockets import abort, connect, count_fds, ending_of, eventually, exchange, free_port, read_to_end, say

LOGS = """
import json, signal, sys, time
def log(**entry):
    sys.stderr.write(json.dumps(entry) + "\\n")
    sys.stderr.flush()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
log(event="start", number=1)
log(event="proxy ready", number=2)
"""
STAYS = LOGS + "signal.pause()\n"


def python(script: str) -> Process:
    return Process([sys.executable, "-c", script])


# ----------------------------------------------------------------------------------------------------------- processes


def test_events_are_waited_for_and_found_again() -> None:
    with python(STAYS) as process:
        assert process.wait_for("proxy ready") == {"event": "proxy ready", "number": 2}
        assert process.wait_for("start", number=1)["number"] == 1
        assert process.running
        assert process.events("start") == [{"event": "start", "number": 1}]
        assert process.stop() == 0
        assert not process.running


def test_waiting_for_what_an_ended_process_never_logged_fails_at_once_with_the_log() -> None:
    with python(LOGS) as process, pytest.raises(AssertionError, match=r"(?s)ended before .*stopped.*proxy ready"):
        process.wait_for("stopped")


def test_waiting_goes_on_behind_a_position() -> None:
    with python(LOGS) as process:
        process.wait()
        assert process.wait_for("start")["number"] == 1
        with pytest.raises(AssertionError, match="ended before"):
            process.wait_for("start", since=1)


def test_waiting_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with python(STAYS) as process:
        process.wait_for("proxy ready")
        monkeypatch.setattr("tests.tools.process.PATIENCE", 0.01)
        with pytest.raises(AssertionError, match="has not logged"):
            process.wait_for("never")
        monkeypatch.undo()


def test_killed_and_started_again() -> None:
    with python(STAYS) as process:
        process.wait_for("proxy ready")
        first = process.pid
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.start()
        process.wait_for("proxy ready")
        assert process.pid != first


def test_a_process_that_does_not_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = LOGS.replace("sys.exit(0)", "None") + "while True: signal.pause()\n"
    with python(deaf) as process:
        process.wait_for("proxy ready")
        monkeypatch.setattr("tests.tools.process.PATIENCE", 0.05)
        with pytest.raises(AssertionError, match="did not end"):
            process.stop()
        monkeypatch.undo()
        assert not process.running


@pytest.mark.parametrize("last_words", ["raise ValueError('bug')", "log(event='task failed', traceback='...')"])
def test_a_traceback_in_the_log_is_an_error(last_words: str) -> None:
    process = python(LOGS + last_words)
    with pytest.raises(AssertionError, match=r"bug|\.\.\."), process:
        process.wait()


def test_another_error_is_not_hidden_by_it() -> None:
    with pytest.raises(KeyError), python(LOGS + "raise ValueError('bug')") as process:
        process.wait()
        raise KeyError


@pytest.mark.netns
def test_a_process_on_a_host_of_the_lab(lab: Lab) -> None:
    process = Process([sys.executable, "-c", STAYS], host=lab.a)
    with process:
        process.wait_for("proxy ready")
        assert os.stat(f"/proc/{process.pid}/ns/net").st_ino != os.stat("/proc/self/ns/net").st_ino
        assert process.stop() == 0


# ------------------------------------------------------------------------------------------------- servers and clients


@pytest.fixture(params=["unix", "tcp", "tcp6"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="hl-") as folder:
        yield {"unix": f"unix:{folder}/s", "tcp": "tcp:127.0.0.1:0", "tcp6": "tcp:[::1]:0"}[request.param]


def test_echo(address: str) -> None:
    before = count_fds(os.getpid())
    with Echo(address) as echo:
        with connect(echo.address) as first, connect(echo.address) as second:
            for size in (1, 64, 100_000):
                exchange(first, os.urandom(size))
                exchange(second, os.urandom(size))
            assert (echo.accepted, echo.open) == (2, 2)
            first.sendall(b"last words")
            first.shutdown(socket.SHUT_WR)
            assert read_to_end(first) == (b"last words", False)
        eventually(lambda: echo.ended == 2, "both ended")
        assert (echo.resets, echo.open) == (0, 0)
    assert count_fds(os.getpid()) == before


def test_echo_of_more_than_all_buffers_hold(address: str) -> None:
    payload = os.urandom(1 << 16) * 160
    with Echo(address) as echo, connect(echo.address) as client:
        sender = threading.Thread(target=client.sendall, args=[payload])
        sender.start()
        assert sockets.read_exactly(client, len(payload)) == payload
        sender.join()


def test_echo_counts_resets() -> None:
    with Echo("tcp:127.0.0.1:0") as echo:
        client = connect(echo.address)
        exchange(client, b"x")
        abort(client)
        eventually(lambda: echo.resets == 1, "the reset")
        assert echo.open == 0


def test_a_scripted_server(address: str) -> None:
    with Listener(address) as listener, connect(listener.address) as client, listener.accept() as accepted:
        accepted.sendall(b"server speaks first")
        abort_with_unread(client, accepted)
        assert read_to_end(client) == (b"server speaks first", True)


def abort_with_unread(client: socket.socket, accepted: socket.socket) -> None:
    """In the way that every type of socket can express."""
    client.sendall(b"never read")
    assert accepted.recv(1, socket.MSG_PEEK) == b"n"
    abort(accepted)


def test_a_unix_socket_without_unread_bytes_cannot_say_that_it_was_aborted(tmp_path: Path) -> None:
    with Listener(tmp_path / "s") as listener, connect(listener.address) as client:
        abort(listener.accept())
        assert read_to_end(client) == (b"", False)


def test_the_end_of_a_call_is_the_same_wherever_it_is_seen() -> None:
    with Listener("tcp:127.0.0.1:0") as listener:

        def cut() -> socket.socket:
            client = connect(listener.address)
            abort(listener.accept())
            return client

        assert ending_of(cut) == (b"", True)

    def overtaken() -> socket.socket:
        raise ConnectionResetError

    assert ending_of(overtaken) == (b"", True)


def test_words_for_somebody_who_has_gone() -> None:
    one, other = socket.socketpair()
    other.close()
    with one:
        say(one, b"hello?")
        assert read_to_end(one) == (b"", False)


def test_a_listeners_address_is_free_again(address: str) -> None:
    with Listener(address) as first, connect(first.address), first.accept():
        pass
    with Listener(first.address) as second, connect(second.address), second.accept():
        pass


def test_free_port() -> None:
    with Listener(f"tcp:127.0.0.1:{free_port()}"):
        pass


def test_eventually_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "PATIENCE", 0.01)
    with pytest.raises(AssertionError, match="pigs fly"):
        eventually(lambda: False, "pigs fly")


def test_reading_too_little_is_an_error() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"abc")
        theirs.close()
        with pytest.raises(AssertionError, match="ended after 3 of 4"):
            sockets.read_exactly(ours, 4)


# ---------------------------------------------------------------------------------------------------------- two proxies

PROXY_OF_STRAW = f"""
from proxy.config.schema import load
import sys
load(sys.argv[-1])
{STAYS}
"""


@pytest.mark.parametrize("mtls", [False, True])
def test_a_mesh_has_configurations_that_are_valid_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, mtls: bool
) -> None:
    monkeypatch.setattr("tests.tools.process.HOSTLANE", [sys.executable, "-c", PROXY_OF_STRAW])
    more = {"limits": {"memory": "16MiB"}, "links": {"max_per_peer": 1}}
    with Mesh("tcp:127.0.0.1:9", mtls=mtls, more=more) as mesh:
        a, b = load(mesh.a.file), load(mesh.b.file)
        assert (a.links.max_per_peer, a.limits.memory) == (1, 16 << 20)
        assert a.peers["host-b"].address == b.links.listen
        assert a.links.security == ("mtls" if mtls else "none")
        assert str(b.services[SERVICE].deliver) == "tcp:127.0.0.1:9"
        assert str(a.upstreams[SERVICE].listen) == mesh.upstream
        mesh.a.kill()
        mesh.a.restart()
    assert not mesh.folder.exists()
    assert not mesh.a.running
    assert not mesh.b.running
