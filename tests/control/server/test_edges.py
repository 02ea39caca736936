"""Edges of the mesh: what hosts tell, what is made of it, and who may see it."""

from __future__ import annotations

import time

import msgspec
import pytest
import trio

from control.api import certificates
from control.api.client import ControlClient, Denied
from control.api.mesh import MOST_EDGES, MOST_PROBLEMS, HostEdges, ToldProblem
from control.api.messages import EdgeInfo
from control.ca import root as ca
from control.ca.issuing import ServerCertificate
from control.server import edges as server_edges
from control.server.credentials import client_context
from control.server.edges import LONGEST_NAME, LONGEST_TEXT, STALE, EdgeBook, MeshEdges, together
from control.server.servers import ControlServers, ServerRecord
from tests.control.server.conftest import MESH, World, record


def edge(caller_host: str, host: str | None, direction: str = "outbound", **more: object) -> EdgeInfo:
    fields = {
        "caller": "shop", "caller_host": caller_host, "service": "redis", "host": host, "direction": direction,
        "streams": 1, "opened": 2, "failed": 0, "sent": 3, "received": 4, "opened_per_s": 0.5, "failed_per_s": 0.0,
        "sent_per_s": 5.0, "received_per_s": 6.0,
    }  # fmt: skip
    return msgspec.convert({**fields, **more}, EdgeInfo)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_a_host_tells_counts_for_a_while() -> None:
    clock = Clock()
    book = EdgeBook(clock)
    book.tell("a", [edge("a", "b")])
    clock.now += STALE - 1
    assert list(book.told()) == [HostEdges(host="a", age_s=STALE - 1, edges=(edge("a", "b"),))]
    book.tell("b", [])
    clock.now += 1
    assert [each.host for each in book.told()] == ["b"]
    assert [each.host for each in book.told()] == ["b"]


def test_a_host_tells_of_its_own_edges_only_and_of_so_many() -> None:
    book = EdgeBook()
    long = edge("a", "b", caller="x" * (LONGEST_NAME + 1))
    foreign = [edge("b", "a"), edge("a", "b", "inbound"), edge("b", "c"), long]
    own = [edge("a", "b"), edge("b", "a", "inbound"), edge("a", "a", "local"), edge("a", None)]
    book.tell("a", [*foreign, *own])
    assert [list(each.edges) for each in book.told()] == [own]
    book.tell("a", [edge("a", "b")] * (MOST_EDGES + 1))
    assert [len(each.edges) for each in book.told()] == [MOST_EDGES]


def test_what_a_host_says_is_wrong_has_bounds() -> None:
    def wrong(**more: object) -> ToldProblem:
        return msgspec.convert({"kind": "host", "name": "host-b", "text": "down", "lasts_s": 5.0, **more}, ToldProblem)

    book = EdgeBook()
    bad = [wrong(text="x" * (LONGEST_TEXT + 1)), wrong(name="x" * (LONGEST_TEXT + 1)), wrong(lasts_s=-1.0)]
    book.tell("a", [], [*bad, wrong()])
    assert [list(each.problems) for each in book.told()] == [[wrong()]]
    book.tell("a", [], [wrong()] * (MOST_PROBLEMS + 1))
    assert [len(each.problems) for each in book.told()] == [MOST_PROBLEMS]


def test_each_edge_is_told_once() -> None:
    def told(host: str, *edges: EdgeInfo) -> HostEdges:
        return HostEdges(host=host, age_s=0.0, edges=edges)

    of_a, of_b = edge("a", "b"), edge("a", "b", "inbound")
    assert list(together({"a": told("a", of_a), "b": told("b", of_b)})) == [of_a]
    assert list(together({"b": told("b", of_b)})) == [of_b], "a is of an earlier version, or unheard"


async def test_hosts_tell_and_the_administrator_sees(world: World) -> None:
    async with world.serving(), world.client("host-a") as a, world.client("host-b") as b, world.admin() as admin:
        for client, name in ((a, "host-a"), (b, "host-b")):
            await client.register(record(name, "redis", address=f"10.77.2.{ord(name[-1])}:7600"))
        quiet, busy = edge("host-a", "host-b"), edge("host-a", None, failed_per_s=1.0)
        with trio.fail_after(20):
            await a.alive("host-a", "1", (quiet, busy, edge("host-x", "host-y")))
            await b.alive("host-b", "1")
            while len((found := await admin.edges()).missing) != 1:
                await trio.sleep(0.01)
        assert found.edges == [busy, quiet], "what fails comes first"
        assert list(found.missing) == ["host-b"]
        assert "has told nothing" in found.missing["host-b"]
        for client in (a, b):
            for ask in (client.edges, client.told_edges):
                with pytest.raises(Denied) as caught:
                    await ask()
                assert (caught.value.status, caught.value.code) == (403, "forbidden")
        with pytest.raises(Denied):
            await admin.told_edges()


async def test_a_host_that_is_not_on_the_map_tells_nothing(world: World) -> None:
    async with world.serving(), world.client("host-a") as client, world.admin() as admin:
        with pytest.raises(Denied):
            await client.alive("host-a", "1", (edge("host-a", "host-b"),))
        assert (await admin.edges()).edges == []


def server_certificate(world: World, name: str = "control-2") -> ServerCertificate:
    key = certificates.new_key()
    leaf = ca.issue(world.root, key.public_key(), ca.CertificateNames.control(MESH, name), time.time(), 3600.0)
    bundle = certificates.pem(world.root.certificate)
    return ServerCertificate(leaf.certificate, certificates.key_pem(key), bundle, time.time(), leaf.not_after)


async def test_a_server_asks_the_others(world: World) -> None:
    async with world.serving(), world.client("host-a") as client:
        await client.register(record("host-a"))
        await client.alive("host-a", "1", (edge("host-a", "host-b"),))
        servers = ControlServers("control-2", "", 1)
        servers.put("x", msgspec.json.encode(_record("control-1", f"127.0.0.1:{world.port}")))
        book = EdgeBook()
        book.tell("host-b", [edge("host-b", "host-a")])
        both = MeshEdges(book, servers, MESH)
        both.context = client_context(server_certificate(world))
        found = await both.read(["host-a", "host-b", "host-c"])
        assert {each.caller_host for each in found.edges} == {"host-a", "host-b"}
        assert list(found.missing) == ["host-c"]


async def test_a_server_that_does_not_answer_is_missing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_edges, "PATIENCE", 0.2)
    servers = ControlServers("control-2", "", 1)
    with trio.socket.socket() as silent:
        await silent.bind(("127.0.0.1", 0))
        silent.listen()
        servers.put("x", msgspec.json.encode(_record("control-1", f"127.0.0.1:{silent.getsockname()[1]}")))
        servers.put("y", msgspec.json.encode(_record("control-3", "0.0.0.0:7601")))
        edges = MeshEdges(EdgeBook(), servers, MESH)
        edges.context = client_context(server_certificate(world))
        found = await edges.read([])
    assert found.edges == []
    assert found.missing["control server control-1"] == "no answer within 0.2 s"
    assert "listens on all addresses (0.0.0.0:7601)" in found.missing["control server control-3"]


async def test_a_revoked_or_foreign_server_is_told_nothing(world: World) -> None:
    async with world.serving():
        stranger = client_context(server_certificate(world))
        expired = ca.issue(
            world.root,
            (key := certificates.new_key()).public_key(),
            ca.CertificateNames.control(MESH, "control-2"),
            time.time() - 7200,
            60.0,
        )
        bundle = certificates.pem(world.root.certificate)
        old = client_context(ServerCertificate(expired.certificate, certificates.key_pem(key), bundle, 0.0, 0.0))
        async with ControlClient([f"127.0.0.1:{world.port}"], lambda: stranger, name=MESH) as client:
            assert (await client.told_edges()).hosts == ()
        async with ControlClient([f"127.0.0.1:{world.port}"], lambda: old, name=MESH) as client:
            with pytest.raises(Denied) as caught:
                await client.told_edges()
        assert (caught.value.code, "control-2" in str(caught.value)) == ("expired", True)


def _record(name: str, address: str) -> ServerRecord:
    return ServerRecord(name=name, address=address, watchers=0, most=1)
