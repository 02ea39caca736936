from __future__ import annotations

import subprocess

import msgspec
import pytest

from control.api.messages import LinkInfo, Status
from proxy.demo import netns
from proxy.demo.lab import Lab
from proxy.errors import NetError
from proxy.explain.account import ExplanationFacts, UnixHop
from proxy.explain.gather import _resolved, gather
from tests.system.world import ask
from tests.tools.mesh import SERVICE, Mesh
from tests.tools.servers import Echo
from tests.tools.sockets import exchange

DELIVER = "tcp:127.0.0.1:7800"


def gathered(lab: Lab, mesh: Mesh, inside: str, to: str | None = None, pid: int | None = None) -> ExplanationFacts:
    admin = mesh.folder / "a" / "run" / "admin.sock"
    status = msgspec.convert(ask(admin, "status"), Status)
    links = msgspec.convert(ask(admin, "links"), list[LinkInfo])
    with netns.entered(inside):
        return gather(str(admin), status, links, status.upstreams[0], to, pid)


@pytest.mark.parametrize("name", ["a..b", f"{'a' * 64}.example"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(NetError, match="does not resolve: it is no name of a host$"):
        _resolved(name)


@pytest.mark.netns
def test_from_the_host_and_from_a_container(lab: Lab) -> None:
    with Echo(DELIVER, lab.b.socket()), Mesh(DELIVER, lab=lab) as mesh, mesh.call() as caller:
        exchange(caller, b"hello")
        found = gathered(lab, mesh, lab.a.netns)
        assert found.upstream.service == SERVICE
        assert found.peer is not None
        assert found.peer.name == "host-b"
        assert (found.direct_to, found.direct_from) == (lab.b.address, "here")
        assert [layer.name for layer in found.direct][:2] == ["netfilter", "macvlan mv0"]
        assert found.carried == found.direct
        assert isinstance(found.direct_ms, float)
        assert isinstance(found.carried_ms, float)
        assert isinstance(found.unix, UnixHop)
        assert found.unix.directory == str(mesh.folder / "a")
        assert found.links[0].open_ms is not None
        # From a container's namespace the proxy's own way is still the one of the proxy.
        found = gathered(lab, mesh, lab.a.container_netns, to=lab.b.machine_address)
        assert [layer.name for layer in found.direct][:2] == ["netfilter", "veth eth0"]
        assert [layer.name for layer in found.carried][:2] == ["netfilter", "macvlan mv0"]
        # The same, asked for from outside.
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        container = lab.a.popen(["sh", "-c", "echo; exec cat"], container=True, **pipes)
        assert container.stdout is not None
        container.stdout.readline()  # it is in
        found = gathered(lab, mesh, lab.a.netns, to=lab.b.machine_address, pid=container.pid)
        assert found.direct_from.startswith(f"process {container.pid}")
        container.communicate()
        with pytest.raises(NetError, match="host-b.invalid does not resolve"):
            gathered(lab, mesh, lab.a.netns, to="host-b.invalid")
