from __future__ import annotations

import socket

import pytest

from proxy.check.readers.linksockets import TcpConnection, connections
from proxy.demo import netns
from proxy.links.rtnetlink import host_network
from tests.check.ground import Ground

pytestmark = [pytest.mark.netns, pytest.mark.failure("25")]


@pytest.mark.parametrize(("own", "other"), [("10.77.0.1", "10.77.0.2"), ("fd77::1", "fd77::2")])
@pytest.mark.parametrize("bound", [True, False])
def test_what_a_connection_is_bound_to(ground: Ground, own: str, other: str, bound: bool) -> None:
    for name, number in ((ground.here, 1), (ground.there, 2)):
        ground.ip(name, f"address add fd77::{number}/64 dev eth0 nodad")
    family = socket.AF_INET6 if ":" in own else socket.AF_INET
    with netns.make_socket(ground.there, family) as server, netns.make_socket(ground.here, family) as client:
        server.bind((other, 0))
        server.listen()
        if bound:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0\0")
        client.connect(server.getsockname())
        with netns.entered(ground.here):
            eth0 = host_network().named("eth0")
            found = connections()
        ports = client.getsockname()[1], server.getsockname()[1]
    assert eth0 is not None
    assert [item for item in found if item.local == own] == [
        TcpConnection(own, ports[0], other, ports[1], eth0.index if bound else 0)
    ]
