"""A door, a proxy and containers' namespaces, all in one process; real engines are in tests/docker."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from control.base.reading.addresses import ADMIN_SOCKET
from proxy.agent.agent import Agent
from proxy.demo import netns
from proxy.door.door import Door
from proxy.telemetry.doorview import LONG
from tests.door.conftest import namespace  # noqa: F401 - a fixture
from tests.door.engines import FakeEngine
from tests.door.house import config, running
from tests.pump.agents import Mesh, mesh
from tests.pump.rig import End, until

pytestmark = pytest.mark.netns
Logs = list[MutableMapping[str, Any]]
Spaces = Callable[[], str]
PLACE = ("127.77.0.2", 6379)
USE = {"hostlane.use": "redis@127.77.0.2:6379"}
OFFER = {"hostlane.offer": "redis=tcp:127.0.0.1:6379"}


@pytest.fixture(autouse=True)
def logs() -> Iterator[Logs]:
    with capture_logs() as entries:
        yield entries


class House:
    """Two hosts, each with an engine and a door."""

    def __init__(self, hosts: Mesh) -> None:
        self.hosts = hosts
        self.folders = {name: hosts.folder / f"house-{name}" for name in ("host-a", "host-b")}
        for folder in self.folders.values():
            folder.mkdir()
        self.engines = {name: FakeEngine(folder / "engine.sock") for name, folder in self.folders.items()}

    @asynccontextmanager
    async def door(self, host: str) -> AsyncIterator[Door]:
        async with running(self.folders[host]) as door:
            yield door

    async def start(self, host: str, offers: list[str]) -> Agent:
        return await self.hosts.start(host, **self.sections(host, offers))

    async def takeover(self, host: str, offers: list[str]) -> tuple[Agent, Agent]:
        """The old proxy, and the new one."""
        old = await self.hosts.takeover(host, self.sections(host, offers))
        return old, self.hosts.agents[host]

    def sections(self, host: str, offers: list[str]) -> dict[str, Any]:
        peer = "b" if host == "host-a" else "a"
        return {**self.hosts.peers(**{peer: offers}), "door": msgspec.to_builtins(config(self.folders[host]))}

    def call(self, name: str) -> End | None:
        """A caller in a container; None: refused."""
        sock = netns.make_socket(name)
        if sock.connect_ex(PLACE):
            return sock.close()
        sock.setblocking(False)
        return self.hosts.hold(sock)

    def service(self, name: str) -> socket.socket:
        """A service in a container."""
        sock = netns.make_socket(name)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 6379))
        sock.listen(1024)  # more than any test calls at once: a full one drops SYNs, which TCP repeats after seconds
        sock.setblocking(False)
        self.hosts.sockets.append(sock)
        return sock

    async def across(self, client: str, server: str) -> tuple[socket.socket, Agent]:
        """A client on A that may call a service on B, which is offered; and the proxy of that."""
        service = self.service(server)
        self.engines["host-a"].put("c", client, USE)
        self.engines["host-b"].put("s", server, OFFER)
        await self.start("host-a", ["redis"])
        b = await self.start("host-b", [])
        await until(lambda: "redis" in b.config.services, "the offer")
        return service, b

    async def accept(self, service: socket.socket) -> End:
        await trio.lowlevel.wait_readable(service)
        return self.hosts.hold(service.accept()[0])


@asynccontextmanager
async def house() -> AsyncIterator[House]:
    async with mesh() as hosts:
        made = House(hosts)
        with made.engines["host-a"], made.engines["host-b"]:
            yield made


async def called(house: House, client: str, service: socket.socket) -> tuple[End, End]:
    """Both ends of a call that works."""
    found: list[End] = []

    def connected() -> bool:
        caller = house.call(client)
        if caller is not None:
            found.append(caller)
        return caller is not None

    await until(connected, "the listener")
    await found[0].send(b"ping")
    accepted = await house.accept(service)
    assert await accepted.read(4) == b"ping"
    await accepted.send(b"pong")
    assert await found[0].read(4) == b"pong"
    return found[0], accepted


async def test_from_container_to_container(namespace: Spaces) -> None:  # noqa: F811
    client, server = namespace(), namespace()
    async with house() as made, made.door("host-a"), made.door("host-b"):
        service = made.service(server)
        made.engines["host-a"].put("c", client, {**USE, "hostlane.caller": "shop"})
        made.engines["host-b"].put("s", server, OFFER)
        a, b = await made.start("host-a", ["redis"]), await made.start("host-b", [])
        await until(lambda: "redis" in b.config.services, "the offer")
        caller, accepted = await called(made, client, service)
        [stream] = a.view.streams()
        assert (stream.service, stream.direction) == ("redis", "outbound")
        caller.finish()
        assert await accepted.rest() == (b"", False)
        accepted.close()
        await until(lambda: not a.stats.open and not b.stats.open, "the end")


async def test_within_one_host(namespace: Spaces) -> None:  # noqa: F811
    client, server = namespace(), namespace()
    async with house() as made, made.door("host-a"):
        service = made.service(server)
        made.engines["host-a"].put("c", client, USE)
        made.engines["host-a"].put("s", server, OFFER)
        agent = await made.start("host-a", [])
        await until(lambda: "redis" in agent.config.services, "the offer")
        caller, accepted = await called(made, client, service)
        assert len(agent.outbound.context.splices) == 1
        made.engines["host-a"].containers["s"]["State"]["Running"] = False
        made.engines["host-a"].happen("die", "s")
        assert await caller.rest() == (b"", True)
        assert "redis" not in agent.config.services
        accepted.close()


async def test_more_calls_at_once_than_there_are_sockets_in_stock(namespace: Spaces) -> None:  # noqa: F811
    client, server = namespace(), namespace()
    async with house() as made, made.door("host-a"):
        service = made.service(server)
        made.engines["host-a"].put("c", client, USE)
        made.engines["host-a"].put("s", server, OFFER)
        agent = await made.start("host-a", [])
        await until(lambda: "redis" in agent.config.services, "the offer")
        await called(made, client, service)
        callers = [made.call(client) for _ in range(300)]
        assert None not in callers
        for _ in callers:
            await made.accept(service)


@pytest.mark.parametrize("state", [{"Paused": True}, {"Health": {"Status": "unhealthy"}}])
async def test_an_offer_is_withdrawn_while_its_container_is_not_well(
    namespace: Spaces, state: dict[str, Any]  # noqa: F811
) -> None:
    client, server = namespace(), namespace()
    async with house() as made, made.door("host-a"):
        engine, service = made.engines["host-a"], made.service(server)
        engine.put("c", client, USE)
        engine.put("s", server, OFFER)
        agent = await made.start("host-a", [])
        caller, accepted = await called(made, client, service)
        well = dict(engine.containers["s"]["State"])
        engine.containers["s"]["State"].update(state)
        engine.happen("pause", "s")
        await until(lambda: "redis" not in agent.config.services, "the withdrawal")
        await caller.send(b"more")
        assert await accepted.read(4) == b"more", "what is open goes on"
        engine.containers["s"]["State"] = well
        engine.happen("unpause", "s")
        await until(lambda: "redis" in agent.config.services, "the offer")
        await called(made, client, service)


async def test_a_container_that_ends_takes_everything_with_it(namespace: Spaces) -> None:  # noqa: F811
    """An open descriptor would keep its namespace, its interfaces and their addresses."""
    client, server = namespace(), namespace()
    async with house() as made, made.door("host-a"), made.door("host-b"):
        service, b = await made.across(client, server)
        caller, accepted = await called(made, client, service)
        for host, id in (("host-a", "c"), ("host-b", "s")):
            made.engines[host].containers[id]["State"]["Running"] = False
            made.engines[host].happen("die", id)
        assert (await caller.rest()).received == b""
        assert (await accepted.rest()).received == b""
        await until(lambda: made.call(client) is None, "the listener's end")
        await until(lambda: "redis" not in b.config.services, "the offer's end")
        assert not b.connector.stocks._stocks


async def test_the_door_is_started_again(namespace: Spaces, logs: Logs) -> None:  # noqa: F811
    client, server = namespace(), namespace()
    async with house() as made:
        service = made.service(server)
        engine = made.engines["host-a"]
        engine.put("c", client, USE)
        engine.put("s", server, OFFER)
        agent = await made.start("host-a", [])
        async with made.door("host-a"):
            caller, accepted = await called(made, client, service)
        await called(made, client, service)
        engine.containers["s"]["State"]["Running"] = False
        async with made.door("host-a") as door:
            await until(lambda: "redis" not in agent.config.services, "the end of the one that ended meanwhile")
            [room] = door._rooms
            await until(lambda: room.listeners, "the listener")
            engine.containers["s"]["State"]["Running"] = True
            engine.happen("start", "s")
            await until(lambda: "redis" in agent.config.services, "the offer")
            await called(made, client, service)
            await caller.send(b"more")
            assert await accepted.read(4) == b"more", "whose container goes on"
    assert not [entry for entry in logs if entry["log_level"] == "error"]


async def test_callers_wait_while_the_proxy_is_away(namespace: Spaces) -> None:  # noqa: F811
    client, server = namespace(), namespace()
    async with house() as made, made.door("host-a"):
        service = made.service(server)
        made.engines["host-a"].put("c", client, USE)
        made.engines["host-a"].put("s", server, OFFER)
        await made.start("host-a", [])
        await called(made, client, service)
        made.hosts.kill("host-a")
        admin = made.hosts.folder / "host-a" / ADMIN_SOCKET
        await until(lambda: not admin.exists(), "the end of the proxy")
        caller = made.call(client)
        assert caller is not None, "nobody is refused"
        await caller.send(b"ping")
        await made.start("host-a", [])
        accepted = await made.accept(service)
        assert await accepted.read(4) == b"ping"


@pytest.mark.parametrize("side", ["host-a", "host-b"], ids=["the callers'", "the service's"])
async def test_one_takes_the_place_of_another_at_the_door(namespace: Spaces, side: str, logs: Logs) -> None:  # noqa: F811
    """Both are at the door: what is open goes on at the old one, and all calls from then on are the new one's."""
    client, server, late = namespace(), namespace(), namespace()
    async with house() as made, made.door("host-a"), made.door("host-b"):
        service, _ = await made.across(client, server)
        caller, accepted = await called(made, client, service)
        old, new = await made.takeover(side, ["redis"] if side == "host-a" else [])
        for _ in range(8):
            again = await called(made, client, service)
            assert len([*old.view.streams()]) == 1
            again[0].close()
            assert (await again[1].rest()).received == b""
            again[1].close()
        made.engines["host-a"].put("d", late, {"hostlane.use": "redis@127.77.0.2:6379"})
        made.engines["host-a"].happen("start", "d")
        await called(made, late, service)
        assert (len([*old.view.streams()]), len([*new.view.streams()])) == (1, 1)
        await caller.send(b"more")
        assert await accepted.read(4) == b"more"
        caller.finish()
        assert await accepted.rest() == (b"", False)
        accepted.close()
        await old.draining.over.wait()
        await called(made, client, service)
    assert not [entry for entry in logs if entry["log_level"] == "error"]


async def test_the_door_keeps_the_sockets_of_the_one_that_has_taken_over() -> None:
    """Whatever the old one says at its end; so that callers wait when the new one ends."""
    async with house() as made, made.door("host-a") as door:
        upstreams = {"echo": {"listen": made.hosts.upstream("host-a", "echo")}}
        sections = {**made.sections("host-a", []), "upstreams": upstreams}
        service = made.hosts.service()
        sections["services"] = {"echo": {"deliver": service.address}}
        await made.hosts.start("host-a", **sections)
        await until(lambda: len([*door.kept]) == 1, "the socket")
        held = made.hosts.call()
        accepted = await service.accept()
        old = await made.hosts.takeover("host-a", sections)
        held.close()
        accepted.close()
        await old.draining.over.wait()
        made.hosts.kill("host-a old")
        async with made.door("host-b"):  # which takes a few turns
            pass
        [(_, kept)] = door.kept
        made.hosts.kill("host-a")
        admin = made.hosts.folder / "host-a" / ADMIN_SOCKET
        await until(lambda: not admin.exists(), "the end of the proxy")
        assert [sock.fileno() for _, sock in door.kept] == [kept.fileno()]
        waits = made.hosts.call()
        await waits.send(b"ping")
        await made.hosts.start("host-a", **sections)
        assert await (await service.accept()).read(4) == b"ping"


async def test_status_tells_what_containers_have_and_whether_the_door_is_there(namespace: Spaces) -> None:  # noqa: F811
    client, server = namespace(), namespace()
    async with house() as made:
        service, engine = made.service(server), made.engines["host-a"]
        engine.put("c", client, {**USE, "hostlane.sockets": "redis", "hostlane.caller": "shop"})
        engine.put("s", server, OFFER)
        agent = await made.start("host-a", [])
        door = agent.view.status().door
        assert door is not None
        assert not door.connected
        assert door.error == "No such file or directory"
        path = made.hosts.folder / "host-a-services" / "containers" / "c-name" / "redis.sock"
        async with made.door("host-a"):
            await until(lambda: bool(agent.config.services) and path.exists(), "offer and socket")
            ends = [*await called(made, client, service), *await called(made, client, service)]
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(path))
                ends.append(await made.accept(service))
                door = agent.view.status().door
            assert door is not None
            assert (door.connected, door.error, door.problems) == (True, "", [])
            assert [msgspec.structs.astuple(each) for each in door.sockets] == [
                ("c-name", "shop", "redis", "tcp:127.77.0.2:6379", 2),
                ("c-name", "shop", "redis", f"unix:{path}", 1),
            ]
            assert [msgspec.structs.astuple(each) for each in door.offers] == [
                ("s-name", "redis", "tcp:127.0.0.1:6379")
            ]
        def away() -> bool:
            found = agent.view.status().door
            return found is not None and not found.connected

        await until(away, "the door's end")
        door = agent.view.status().door
        assert door is not None
        assert len(door.sockets) == 2, "which go on"
        assert not [line for line in agent.view.counts().missing if "door" in line], "a moment is no problem"
        assert agent.door is not None
        agent.door._since -= LONG
        [problem] = [each for each in (await agent.finder.find()).problems if "door" in each.text]
        assert (problem.kind, problem.name) == ("this host", "the door is away")


async def test_without_a_door_status_says_nothing_of_containers() -> None:
    async with mesh() as hosts:
        agent = await hosts.start("host-a")
        assert agent.view.status().door is None
        assert not agent.view.counts().missing


async def test_what_stands_in_the_file_stays(namespace: Spaces, logs: Logs) -> None:  # noqa: F811
    server = namespace()
    async with house() as made, made.door("host-a"):
        made.engines["host-a"].put("s", server, OFFER)
        deliver = {"redis": {"deliver": f"unix:{made.hosts.folder}/x"}}
        section = msgspec.to_builtins(config(made.folders["host-a"]))
        agent = await made.hosts.start("host-a", services=deliver, door=section)
        await until(lambda: [entry for entry in logs if entry["log_level"] == "error"], "the line")
        assert str(agent.config.services["redis"].deliver) == f"unix:{made.hosts.folder}/x"
    [entry] = [entry for entry in logs if entry["log_level"] == "error"]
    why = "hostlane.offer: redis stands under services, which has the last word"
    assert entry["error"] == f"container s-name: {why}"


async def test_a_reload_keeps_what_containers_offer(namespace: Spaces) -> None:  # noqa: F811
    server = namespace()
    async with house() as made, made.door("host-a"):
        made.engines["host-a"].put("s", server, OFFER)
        agent = await made.start("host-a", [])
        await until(lambda: "redis" in agent.config.services, "the offer")
        static = agent._static
        changed = msgspec.structs.replace(static, limits=msgspec.structs.replace(static.limits, stop_timeout=1.0))
        assert [change.key for change in agent.preview(changed).changes] == ["limits.stop_timeout"]
        assert [change.key for change in agent.rebase(changed).changes] == ["limits.stop_timeout"]
        assert "redis" in agent.config.services


async def test_somebody_else_listens_there(logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    from control.base.system.peercred import PeerCredentials
    from proxy.agent import doorkeeper

    monkeypatch.setattr(doorkeeper, "credentials_of", lambda sock: PeerCredentials(1, 4242, 1))
    async with house() as made, made.door("host-a"):
        await made.start("host-a", [])
        await until(lambda: [e for e in logs if "user 4242 listens there" in str(e.get("error"))], "the line")




async def test_unix_sockets_of_a_container(namespace: Spaces) -> None:  # noqa: F811
    """Its directory is there from its creation, over the ends of door and proxy, until it is removed."""
    server = namespace()
    async with house() as made:
        engine = made.engines["host-a"]
        path = made.hosts.folder / "host-a-services" / "containers" / "c-name" / "redis.sock"
        async with made.door("host-a"), made.door("host-b"):
            service = made.service(server)
            made.engines["host-b"].put("s", server, OFFER)
            await made.start("host-a", ["redis"])
            b = await made.start("host-b", [])
            await until(lambda: "redis" in b.config.services, "the offer")
            engine.put("c", "", {"hostlane.sockets": "redis", "hostlane.caller": "shop"}, Running=False)
            engine.happen("create", "c")
            await until(path.exists, "the socket")
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(path))
                sock.setblocking(False)
                caller = made.hosts.hold(sock.dup())
            await caller.send(b"ping")
            accepted = await made.accept(service)
            assert await accepted.read(4) == b"ping"
            [edge] = [edge for edge in (await b.view.edges()).edges if edge.service == "redis"]
            assert edge.caller == "shop"
        assert path.exists()
        async with made.door("host-a") as door:
            await until(lambda: bool([*door.kept]), "the socket at the door")
            made.hosts.kill("host-a")
            admin = made.hosts.folder / "host-a" / ADMIN_SOCKET
            await until(lambda: not admin.exists(), "its end")
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(path))  # the door keeps it, and who calls waits
                sock.setblocking(False)
                caller = made.hosts.hold(sock.dup())
            await caller.send(b"ping")
            await made.start("host-a", ["redis"])
            accepted = await made.accept(service)
            assert await accepted.read(4) == b"ping"
            del engine.containers["c"]
            engine.happen("destroy", "c")
            await until(lambda: not path.parent.exists(), "the removal")


async def test_the_directory_waits_for_no_inspection(namespace: Spaces) -> None:  # noqa: F811
    """The engine answers for a container that starts only when it has started, and then has mounted the directory."""
    async with house() as made, made.door("host-a"):
        await made.start("host-a", ["redis"])
        engine = made.engines["host-a"]
        path = made.hosts.folder / "host-a-services" / "containers" / "c-name" / "redis.sock"
        engine.put("c", "", {"hostlane.sockets": "redis"}, Running=False)
        engine.hold()
        engine.happen("create", "c")
        await until(path.exists, "the socket")
        engine.release()


async def test_a_directory_whose_container_has_gone_unseen(namespace: Spaces) -> None:  # noqa: F811
    async with house() as made, made.door("host-a"):
        left = made.hosts.folder / "host-a-services" / "containers" / "gone"
        left.mkdir(parents=True)
        (left / ".redis.sock.lock").touch()
        await made.start("host-a", ["redis"])
        await until(lambda: not left.exists(), "the removal")


async def test_a_proxy_accepts_when_it_knows_what_containers_offer(namespace: Spaces) -> None:  # noqa: F811
    """Or calls that have waited for it would hear that there is no such service."""
    server = namespace()
    async with house() as made, made.door("host-a"):
        made.engines["host-a"].put("s", server, OFFER)
        proxy = await made.start("host-a", [])
        assert list(proxy.config.services) == ["redis"]


async def test_a_proxy_whose_door_is_away_starts_without_it() -> None:
    async with house() as made:
        proxy = await made.start("host-a", ["redis"])
        assert not proxy.config.services
