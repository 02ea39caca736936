"""Caller and service on one host: no link, no frames, the same promises. Needs neither root nor namespaces."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest

from tests.system.talk import Caller, Callers, last_words
from tests.system.world import ask
from tests.tools.process import Proxy
from tests.tools.servers import Echo, Listener
from tests.tools.sockets import (
    abort,
    connect,
    count_fds,
    ending_of,
    eventually,
    exchange,
    free_ports,
    read_exactly,
    read_to_end,
)

pytestmark = pytest.mark.failure(2, 3)

KINDS = ["unix", "tcp"]


@pytest.fixture(scope="module")
def host() -> Iterator[SimpleNamespace]:
    folder = Path(tempfile.mkdtemp(prefix="hl-"))
    calls, service, links = free_ports(3)
    listen = {"unix": f"unix:{folder}/calls.sock", "tcp": f"tcp:127.0.0.1:{calls}"}
    deliver = {"unix": f"unix:{folder}/service.sock", "tcp": f"tcp:127.0.0.1:{service}"}
    config = {
        "host": "host-a",
        "run_dir": f"{folder}/run",
        "links": {"listen": f"127.0.0.1:{links}", "security": "none"},
        "upstreams": {kind: {"listen": listen[kind]} for kind in KINDS},
        "services": {kind: {"deliver": deliver[kind]} for kind in KINDS},
        "log": {"level": "debug", "format": "json"},
    }
    with Proxy(config, folder) as proxy:
        yield SimpleNamespace(proxy=proxy, listen=listen, deliver=deliver, admin=folder / "run" / "admin.sock")
    shutil.rmtree(folder)


@pytest.fixture(params=[f"{kind}, the {who} ends" for kind in KINDS for who in ("caller", "service")])
def pair(request: pytest.FixtureRequest, host: SimpleNamespace) -> Iterator[tuple[socket.socket, socket.socket]]:
    kind, _, who = request.param.partition(", the ")
    with Listener(host.deliver[kind]) as listener, connect(host.listen[kind]) as client, listener.accept() as server:
        yield (client, server) if who.startswith("caller") else (server, client)
    eventually(lambda: ask(host.admin, "status")["streams"] == 0, "the stream is gone")


Pair = tuple[socket.socket, socket.socket]


def test_half_close_and_an_answer(pair: Pair) -> None:
    one, other = pair
    one.sendall(b"x" * 50_000)
    one.shutdown(socket.SHUT_WR)
    assert read_to_end(other) == (b"x" * 50_000, False)
    other.sendall(b"y" * 50_000)
    other.close()
    assert read_to_end(one) == (b"y" * 50_000, False)


def test_close(pair: Pair) -> None:
    one, other = pair
    one.sendall(b"all of it")
    one.close()
    assert read_to_end(other) == (b"all of it", False)


def test_close_with_bytes_unread(pair: Pair) -> None:
    one, other = pair
    other.sendall(b"never read")
    eventually(partial(_unread, one, 10), "unread bytes")
    one.close()
    ending = read_to_end(other)
    assert ending.received == b""
    assert ending.reset or other.family == socket.AF_UNIX


@pytest.mark.failure("21a")
@pytest.mark.parametrize("size", [200, 1 << 20])
def test_last_words_to_an_end_that_is_still_writing(pair: Pair, size: int) -> None:
    one, other = pair
    last_words(one, other, Random(size).randbytes(size))


def test_reset(pair: Pair) -> None:
    one, other = pair
    one.sendall(b"half a mess")
    assert read_exactly(other, 11) == b"half a mess"
    other.sendall(b"?")
    eventually(partial(_unread, one, 1), "unread bytes")
    abort(one)
    ending = read_to_end(other)
    assert ending.reset or other.family == socket.AF_UNIX


def _unread(sock: socket.socket, size: int) -> bool:
    return len(sock.recv(size + 1, socket.MSG_PEEK)) == size


@pytest.mark.failure(16)
@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_speaks_first(host: SimpleNamespace, kind: str) -> None:
    with Listener(host.deliver[kind]) as listener, connect(host.listen[kind]) as client, listener.accept() as server:
        server.sendall(b"220 ready")
        assert read_exactly(client, 9) == b"220 ready"


@pytest.mark.failure(1, 4)
@pytest.mark.parametrize("kind", KINDS)
def test_traffic_bulk_and_a_reader_that_stopped_beside_each_other(host: SimpleNamespace, kind: str) -> None:
    before = count_fds(host.proxy.pid)
    with Echo(host.deliver[kind]), connect(host.listen[kind]) as stopped:
        stopped.settimeout(0.3)
        with pytest.raises(TimeoutError):
            while True:
                stopped.sendall(b"x" * 65536)
        with Callers(Caller(number, connect(host.listen[kind])) for number in range(8)) as callers:
            callers.all_talk()
            with connect(host.listen[kind]) as bulk:
                for number in range(100):
                    exchange(bulk, Random(number).randbytes(100_000))
            callers.all_talk()
        assert callers.endings() == {"stopped"}
    eventually(lambda: ask(host.admin, "status")["streams"] == 0, "all streams are gone")
    eventually(lambda: count_fds(host.proxy.pid) <= before, "no descriptor is left")
    assert ending_of(partial(connect, host.listen[kind])) == (b"", kind == "tcp"), "nobody listens any more"


INHERITED = {
    "nohup, in the background": ["env", "--ignore-signal=HUP,INT,QUIT,PIPE"],
    "standard input closed": ["sh", "-c", 'exec "$@" <&-', "sh"],
    "a umask that leaves others nothing": ["sh", "-c", 'umask 077 && exec "$@"', "sh"],
    "a directory that is gone": ["sh", "-c", 'mkdir "$0" && cd "$0" && rmdir "$0" && exec "$@"', "{folder}/gone"],
}
"""What a process has from whoever started it, and may be unlike anything that is usual: a command to stand before."""


@pytest.fixture
def folder() -> Iterator[Path]:
    found = Path(tempfile.mkdtemp(prefix="hl-"))
    yield found
    shutil.rmtree(found)


@pytest.mark.parametrize("how", INHERITED)
def test_a_proxy_is_the_same_whatever_it_inherits(folder: Path, how: str) -> None:
    """It serves, reloads on SIGHUP, hands over to a successor that inherits the same, and ends by SIGINT. (nohup means
    a terminal that is closed, which a daemon does not end by anyway; whoever sends SIGHUP to one wants a reload.)
    """
    config = {
        "host": "host-a",
        "run_dir": f"{folder}/run",
        "links": {"listen": f"127.0.0.1:{free_ports(1)[0]}", "security": "none"},
        "upstreams": {"echo": {"listen": f"unix:{folder}/calls.sock"}},
        "services": {"echo": {"deliver": f"unix:{folder}/service.sock"}},
        "log": {"format": "json"},
    }
    calls = folder / "calls.sock"
    proxy = Proxy(config, folder)
    proxy.argv = [*(word.format(folder=folder) for word in INHERITED[how]), *proxy.argv]
    with Echo(f"unix:{folder}/service.sock"), proxy, ExitStack() as stack:
        with connect(calls) as client:
            exchange(client, b"hello")
            assert stat.S_IMODE(calls.stat().st_mode) == 0o666, "callers may be anybody"
            os.kill(proxy.pid, signal.SIGHUP)
            proxy.wait_for("configuration applied")
            os.kill(proxy.pid, signal.SIGUSR2)
            new = proxy.wait_for("successor started")["pid"]
            stack.callback(_kill, new)
            proxy.wait_for("proxy handed over", pid=new)
            exchange(client, b"the old one goes on")
        eventually(lambda: not proxy.running, "the old one ends")
        with connect(calls) as client:
            exchange(client, b"the new one")
        os.kill(new, signal.SIGINT)
        eventually(lambda: not Path(f"/proc/{new}/exe").exists(), "the new one ends")
        assert not calls.exists()


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
