from __future__ import annotations

import pytest

from proxy.check.context import DiagnosisContext, look
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
