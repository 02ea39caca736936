from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from control.api.messages import PeerStatus, Status
from proxy.check.context import MOST, DiagnosisContext, look
from proxy.config.schema import parse
from proxy.netdev.observe.observe import NetInterface, NetSnapshot

TEXT = """\
host: host-a
links: {listen: 127.0.0.1:7600, security: none}
peers:
  host-b: {address: 127.0.0.2:7600}
  host-c: {address: "[::1]:7600"}
  host-d: {address: host-d.invalid:7600}
"""
MESHED = TEXT.replace("security: none", "security: mtls") + "control: {servers: [127.0.0.9:7601]}\n"


def test_where_the_peers_are() -> None:
    context = look(parse(TEXT, "a.yaml"), ("host.pem",))
    assert [(target.peer, target.name, target.address) for target in context.targets] == [
        ("host-b", "127.0.0.2", "127.0.0.2"),
        ("host-c", "::1", "::1"),
        ("host-d", "host-d.invalid", None),
    ]
    assert context.targets[2].problem
    assert context.snapshot.named("lo") is not None
    assert context.certificates == ("host.pem",)


def test_the_certificates_of_the_configuration_come_first() -> None:
    tls = "security: mtls, tls: {certificate: /etc/host.pem, key: /etc/host.key, ca: /etc/ca.pem}"
    context = look(parse(TEXT.replace("security: none", tls), "a.yaml"), ("other.pem",))
    assert context.certificates == ("/etc/host.pem", "/etc/ca.pem", "other.pem")


def test_a_machine_without_a_configuration() -> None:
    assert look(None).targets == ()


@pytest.mark.parametrize(
    ("name", "kind", "shown", "offloaded"),
    [
        ("mv0", "macvlan", "macvlan", True),
        ("eth0", "", "", False),
        ("eth1", "", "vf", True),
        ("docker0", "bridge", "bridge", False),
        ("eth2", "veth", "veth", False),
    ],
)
def test_what_goes_past_the_host(name: str, kind: str, shown: str, offloaded: bool) -> None:
    context = DiagnosisContext(config=None, snapshot=NetSnapshot(), virtual_functions=frozenset({"eth1"}))
    interface = NetInterface(index=1, name=name, kind=kind)
    assert (context.kind(interface), context.offloaded(interface)) == (shown, offloaded)


@pytest.mark.failure("32")
@pytest.mark.parametrize("peers", [0, 1, 40])
def test_with_a_control_plane_the_running_proxy_says_who_the_peers_are(tmp_path: Path, peers: int) -> None:
    status = Status(
        host="host-a", pid=7, version="0", uptime_s=1.0, security="mtls", sessions=1, streams=0, memory_used=0,
        memory_limit=1, streams_opened=0, streams_refused=0, handshakes_avoided=0, upstreams=[], services=[],
        peers=[
            PeerStatus(
                name=f"host-{number}", address=f"127.0.1.{number}:7600", state="up" if number == 39 else "down",
                links=0, streams=0, waiting=0,
            )
            for number in range(peers)
        ],
    )  # fmt: skip
    text = f"{MESHED}run_dir: {tmp_path}\n"
    with answering(tmp_path / "admin.sock", msgspec.json.encode(status)):
        context = look(parse(text, "a.yaml"))
    found = [target.peer for target in context.targets]
    assert found[:3] == ["host-b", "host-c", "host-d"], "those of the file count before"
    assert len(found) == min(3 + peers, MOST)
    assert found[3:4] == [[], ["host-0"], ["host-39"]][(peers > 0) + (peers > 1)], "those with a link first"
    assert [item.what for item in context.more] == (["ways to 11 more peers"] if peers == 40 else [])


@pytest.mark.failure("32")
def test_without_a_running_proxy_it_says_why_it_knows_none(tmp_path: Path) -> None:
    text = f"{MESHED}run_dir: {tmp_path}\n"
    (said,) = look(parse(text, "a.yaml")).more
    assert said.what == "peers of the control plane"
    assert (
        said.why == f"only the running proxy knows them: {tmp_path}/admin.sock: no such socket; is the proxy running?"
    )


@contextmanager
def answering(path: Path, body: bytes) -> Iterator[None]:
    """An admin socket that gives one answer, as HTTP."""

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                if client.recv(65536):
                    client.sendall(
                        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
                        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
                    )

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
