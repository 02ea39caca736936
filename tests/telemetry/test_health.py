"""alive, ready, mesh: what each looks at, and what it does not."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from control.api.client import Denied
from control.api.messages import HealthAnswer
from proxy.agent.agent import Agent
from proxy.links import acceptgate
from proxy.outbound import sockets
from proxy.pump.heartbeat import Heartbeat
from proxy.pump.listener import Listener
from proxy.telemetry.health import MOST_PROBLEMS, answer, certificate
from tests.mesh.plane import Plane, snapshot
from tests.pump.agents import Mesh, mesh
from tests.pump.rig import until

pytestmark = pytest.mark.failure("26")
FINE = HealthAnswer(ok=True)


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as entries:
        yield entries


async def asked(agent: Agent, question: str) -> HealthAnswer:
    """As the admin socket asks, through a heart of the test's own."""
    heart = Heartbeat(agent.pump)
    try:
        return await agent._health(heart).questions[f"/{question}"]()
    finally:
        heart.close()


async def test_other_hosts_are_no_part_of_ready() -> None:
    async with mesh() as hosts:
        upstreams = {"echo": {"listen": hosts.upstream("host-a", "echo")}}
        agent = await hosts.start("host-a", **hosts.peers(b=["echo"], c=[]), upstreams=upstreams)
        await until(lambda: agent.pools["host-b"].last_error, "host-b is not there")
        assert await asked(agent, "alive") == FINE
        assert await asked(agent, "ready") == FINE
        found = await asked(agent, "mesh")
        assert not found.ok
        assert [problem.partition(":")[0] for problem in found.problems] == ["host-b is down"]
        await hosts.start("host-b", **hosts.peers(a=[]))
        await until(lambda: agent.pools["host-b"].up, "host-b is there")
        assert await asked(agent, "mesh") == FINE


async def test_a_socket_whose_file_is_gone() -> None:
    async with mesh() as hosts:
        places = {name: hosts.upstream("host-a", name) for name in ("echo", "web")}
        upstreams = {name: {"listen": place} for name, place in places.items()}
        agent = await hosts.start("host-a", **hosts.peers(b=["echo", "web"]), upstreams=upstreams)
        assert await asked(agent, "ready") == FINE
        os.unlink(places["web"].removeprefix("unix:"))
        [problem] = (await asked(agent, "ready")).problems
        assert problem == f"{places['web']}: the socket's file is gone, so nobody can call"
        Path(places["web"].removeprefix("unix:")).write_text("somebody else's")
        assert not (await asked(agent, "ready")).ok


@pytest.mark.failure("30")
async def test_one_that_peers_cannot_reach_is_alive_but_not_ready() -> None:
    """No interface has the address, of the network for documentation (RFC 5737)."""
    async with mesh() as hosts:
        agent = await hosts.start("host-a", links={"listen": "192.0.2.1:7600"})
        missing = "links.listen: 192.0.2.1:7600: no interface has that address: peers cannot reach this host"
        assert (await asked(agent, "ready")).problems == [missing]
        assert await asked(agent, "alive") == FINE
        assert agent.view.status().missing == [missing]


DENIED = [errno.EACCES, errno.EPERM, errno.ENFILE]


@pytest.mark.failure("30")
@pytest.mark.parametrize("code", DENIED, ids=errno.errorcode.get)
async def test_an_upstream_where_nothing_can_be_accepted(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Denied(Listener):
        denied = False

        def _accept(self) -> int:
            return -code if Denied.denied else super()._accept()

    monkeypatch.setattr(sockets, "Listener", Denied)
    async with mesh() as hosts:
        listen = hosts.upstream("host-a", "echo")
        agent = await hosts.start("host-a", **hosts.peers(b=["echo"]), upstreams={"echo": {"listen": listen}})
        Denied.denied = True
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(listen.removeprefix("unix:"))
            await until(lambda: agent.view.failing(), "it fails")
            line = f"{listen}: cannot accept a connection: {os.strerror(code)}"
            assert (await asked(agent, "ready")).problems == [line]
            assert await asked(agent, "alive") == FINE
            status = agent.view.status()
            assert status.cannot_accept == [line]
            assert status.upstreams[0].held_back == f"cannot accept a connection: {os.strerror(code)}"
            assert line in agent.view.counts().missing
            Denied.denied = False
            await until(lambda: not agent.view.failing(), "it works again")
            assert await asked(agent, "ready") == FINE
            assert agent.view.status().upstreams[0].held_back == ""


@pytest.mark.failure("30")
@pytest.mark.parametrize("code", DENIED, ids=errno.errorcode.get)
async def test_links_that_cannot_be_accepted(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Denied(socket.socket):
        denied = True

        def accept(self) -> Any:
            if Denied.denied:
                raise OSError(code, os.strerror(code))
            return super().accept()

    monkeypatch.setattr(acceptgate, "socket", SimpleNamespace(socket=Denied))
    async with mesh() as hosts:
        agent = await hosts.start("host-a", **hosts.peers(b=[]))
        assert await asked(agent, "ready") == FINE
        host, _, port = hosts.addresses["host-a"].partition(":")
        with socket.create_connection((host, int(port))):
            await until(lambda: agent.view.failing(), "it fails")
            line = f"links.listen: cannot accept a connection: {os.strerror(code)}"
            assert (await asked(agent, "ready")).problems == agent.view.status().cannot_accept == [line]
            Denied.denied = False
            await until(lambda: not agent.view.failing(), "it works again")
            assert await asked(agent, "ready") == FINE


async def test_one_that_is_about_to_stop_is_not_ready_but_alive() -> None:
    async with mesh() as hosts:
        service = await hosts.pair()
        agent = hosts.agents["host-a"]
        hosts.call()
        await service.accept()
        agent.draining.begin(20)
        assert (await asked(agent, "ready")).problems == ["it is about to stop"]
        assert await asked(agent, "alive") == FINE


async def member(hosts: Mesh, plane: Plane) -> Agent:
    control = {"servers": ["10.0.0.9:7601"], "state_dir": str(hosts.folder / "state")}
    return await hosts.start("host-a", plane, control=control)


async def test_registered_or_fail_static() -> None:
    plane = Plane()
    plane.first, plane.revision = snapshot(), 2  # the map is older than the registration, so it says nothing about it
    async with mesh(mtls=True) as hosts:
        agent = await member(hosts, plane)
        await plane.asked("register")
        assert agent.member is not None
        follower = agent.member.follower
        await until(lambda: follower.registration.registered is not None, "it is registered")
        assert await asked(agent, "ready") == FINE
        plane.down = True
        plane.cut()
        await until(lambda: follower.standing.server is None, "the control plane is gone")
        follower.registration.registered = None
        assert await asked(agent, "ready") == FINE, "the last map counts"


async def test_neither_registered_nor_a_map() -> None:
    plane = Plane()
    plane.down = True
    async with mesh(mtls=True) as hosts:
        agent = await member(hosts, plane)
        assert agent.member is not None
        await until(lambda: agent.member and agent.member.follower.registration.last_error, "an attempt")
        [problem] = (await asked(agent, "ready")).problems
        assert problem.startswith("not registered, and there is no map yet: no control server answers")


@pytest.mark.parametrize(
    ("code", "words"),
    [("revoked", "the control plane refuses this host: "), ("superseded", "another process has registered this host")],
)
async def test_the_control_plane_says_no(code: Any, words: str) -> None:
    plane = Plane()
    plane.first = snapshot()
    plane.denied["register"] = Denied(code, "no", 403)
    async with mesh(mtls=True) as hosts:
        agent = await member(hosts, plane)
        await plane.asked("register")
        assert agent.member is not None
        registration = agent.member.follower.registration
        await until(lambda: registration.refused or registration.displaced, "the answer")
        [problem] = (await asked(agent, "ready")).problems
        assert problem.startswith(words)
        assert await asked(agent, "alive") == FINE


async def test_a_certificate_that_is_not_in_force() -> None:
    async with mesh(mtls=True) as hosts:
        keyring = (await hosts.start("host-a")).keyring
        assert keyring is not None
        current = keyring.current
        assert list(certificate(keyring, current.not_after - 1)) == []
        [expired] = certificate(keyring, current.not_after + 1)
        assert expired.startswith("this host's certificate expired on ")
        [early] = certificate(keyring, current.not_before - 1)
        assert early.startswith("this host's certificate is not valid before ")
        keyring.revoked.adopt([current.serial])
        [revoked] = certificate(keyring, current.not_after - 1)
        assert revoked == f"this host's certificate {current.serial} has been revoked"
    assert list(certificate(None, 0.0)) == []


def test_many_problems_are_counted() -> None:
    found = answer([f"problem {number}" for number in range(MOST_PROBLEMS + 5)])
    assert (len(found.problems), found.problems[-1]) == (MOST_PROBLEMS + 1, "and 5 more")
