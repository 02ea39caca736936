"""Mutual TLS between two real proxies: who gets a link, what both sides say to who does not, and new certificates
under traffic.
"""

from __future__ import annotations

import pytest

from proxy.demo.certificates import Authority
from proxy.demo.lab import Lab
from tests.system.world import KINDS, World
from tests.tools.sockets import exchange

pytestmark = pytest.mark.netns


def test_streams_over_mtls(lab: Lab) -> None:
    with World(lab, mtls=True) as world:
        for kind in KINDS:
            with world.call(kind) as client:
                for size in (1, 1000, 100_000):
                    exchange(client, b"x" * size)
        world.wait_until_idle()


@pytest.mark.failure(11)
def test_a_certificate_of_another_ca_gets_no_link(lab: Lab) -> None:
    with World(lab, mtls=True) as world:
        world.b.kill()
        Authority().write(world.folder / "b", "host-b")
        world.b.restart()
        world.a.wait_for(
            "cannot reach peer", error="the peer's certificate is refused: it is not signed by a CA in links.tls.ca"
        )
        world.b.wait_for(
            "link refused",
            reason="wrong_host",
            error="the peer refused this host's certificate: it is not signed by a CA that the peer trusts",
        )
