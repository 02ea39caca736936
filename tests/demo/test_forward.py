from __future__ import annotations

import socket
import threading

from proxy.demo.forward import PortForward
from proxy.demo.loopback import LoopbackHost


def test_what_is_said_there_is_heard_here() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        with PortForward(LoopbackHost("host-a"), server.getsockname()[1]) as forward:
            for word in (b"one", b"two"):
                with socket.create_connection(("127.0.0.1", forward.port), timeout=20) as client:
                    client.sendall(word)
                    client.shutdown(socket.SHUT_WR)
                    there, _ = server.accept()
                    with there:
                        there.settimeout(20)
                        assert there.recv(10) == word
                        assert there.recv(10) == b""
                        there.sendall(word * 50_000)
                    with client.makefile("rb") as answer:
                        assert answer.read() == word * 50_000


def test_where_nobody_listens_a_connection_ends() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with PortForward(LoopbackHost("host-a"), unused.getsockname()[1]) as forward:
            with socket.create_connection(("127.0.0.1", forward.port), timeout=20) as client:
                assert client.recv(10) == b""


def test_leaving_ends_what_is_under_way() -> None:
    before = threading.active_count()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        with PortForward(LoopbackHost("host-a"), server.getsockname()[1]) as forward:
            client = socket.create_connection(("127.0.0.1", forward.port), timeout=20)
            there, _ = server.accept()
        with client, there:
            assert client.recv(10) == b""
    assert threading.active_count() == before
