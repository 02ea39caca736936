"""A configuration applied to a proxy that runs: whole or not at all, and nothing that is open notices."""

from __future__ import annotations

import socket
import stat
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from proxy.agent.agent import Agent
from proxy.config.schema import Config, PeerConfig
from proxy.errors import CloseReason, NotApplied
from tests.pump.agents import Mesh, mesh
from tests.pump.rig import End, until
from tests.tools.sockets import connect


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as entries:
        yield entries


PATIENT = {"limits": {"open_timeout": "20s", "stop_timeout": "20s"}}


def path_of(address: str) -> Path:
    return Path(address.removeprefix("unix:"))


def upstream(hosts: Mesh, *names: str, **more: Any) -> dict[str, Any]:
    return {"upstreams": {name: {"listen": hosts.upstream("host-a", name), **more} for name in names}}


def everything(agent: Agent) -> object:
    """What a refused configuration must not have touched."""
    sockets = {address: opened.upstream for address, opened in agent.outbound.sockets.opened.items()}
    return (
        agent.config, agent.view.config, dict(agent.pools), agent.pools.everywhere, sockets,
        agent.inbound._local_services, agent.outbound.context.table, agent.outbound.context.allowed,
        agent.pump.budget.limit,
        {name: (pool.peer, pool._needed, pool._config) for name, pool in agent.pools.items()},
    )  # fmt: skip


async def talks(end: End, other: End) -> None:
    await end.send(b"ping")
    assert await other.read(4) == b"ping"
    await other.send(b"pong")
    assert await end.read(4) == b"pong"


async def test_the_same_configuration_is_no_difference() -> None:
    async with mesh() as hosts:
        agent = await hosts.start("host-a", **hosts.peers(b=["echo"]), **upstream(hosts, "echo"))
        pool = agent.pools["host-b"]
        assert not agent.apply(hosts.config("host-a", {**hosts.peers(b=["echo"]), **upstream(hosts, "echo")}))
        assert agent.pools["host-b"] is pool


async def test_a_peer_its_services_and_an_upstream_are_added() -> None:
    async with mesh() as hosts:
        service = hosts.service()
        far = await hosts.start("host-b")
        near = await hosts.start("host-a")
        far.apply(hosts.config("host-b", {**hosts.peers(a=[]), "services": {"echo": {"deliver": service.address}}}))
        found = near.apply(hosts.config("host-a", {**hosts.peers(b=["echo"]), **upstream(hosts, "echo")}))
        assert [str(change) for change in found.changes] == ["peers.host-b: added", "upstreams.echo: added"]
        caller = hosts.call()
        await talks(caller, await service.accept())
        assert [peer.state for peer in near.view.status().peers] == ["up"]


@pytest.mark.parametrize("moved", [True, False])
async def test_a_call_that_waits_for_a_peer_goes_to_this_host_when_that_offers_the_service(moved: bool) -> None:
    async with mesh() as hosts:
        service = hosts.service()
        sections = {**upstream(hosts, "echo"), **PATIENT}
        near = await hosts.start("host-a", **hosts.peers(b=["echo"]), **sections)
        caller = hosts.call()
        await until(lambda: near.pools["host-b"].waiting == 1, "the call waits")
        peers = hosts.peers(b=[] if moved else ["echo"])
        near.apply(hosts.config("host-a", {**peers, **sections, "services": {"echo": {"deliver": service.address}}}))
        with trio.fail_after(2):
            await talks(caller, await service.accept())
        assert near.pools["host-b"].waiting == 0


@pytest.mark.failure(11)
async def test_a_call_that_is_refused_goes_to_a_host_that_has_come_meanwhile() -> None:
    """A service that moves: its old host has just lost it, and the map has come while the call was on its way."""
    async with mesh() as hosts:
        full, service = hosts.service("full", backlog=0), hosts.service()
        hosts.hold(connect(full.address))
        slow = {"echo": {"deliver": full.address, "connect_timeout": "300ms"}}
        await hosts.start("host-b", **hosts.peers(a=[]), services=slow)
        await hosts.start("host-c", **hosts.peers(a=[]), services={"echo": {"deliver": service.address}})
        near = await hosts.start("host-a", **hosts.peers(b=["echo"]), **upstream(hosts, "echo"))
        await until(lambda: near.pools["host-b"].up, "the link")
        caller = hosts.call()
        await until(lambda: near.pools["host-b"].streams == 1, "the call is on its way")
        near.apply(hosts.config("host-a", {**hosts.peers(c=["echo"]), **upstream(hosts, "echo")}))
        with trio.fail_after(3):
            await talks(caller, await service.accept())


async def test_a_peer_that_is_removed_keeps_its_streams_and_takes_no_new_ones() -> None:
    async with mesh() as hosts:
        service = await hosts.pair(**PATIENT)
        agent, far = hosts.agents["host-a"], hosts.agents["host-b"]
        caller = hosts.call()
        accepted = await service.accept()
        pool = agent.pools["host-b"]
        agent.apply(
            hosts.config(
                "host-a", {**upstream(hosts, "echo"), **PATIENT, "services": {"echo": {"deliver": "tcp:127.0.0.1:9"}}}
            )
        )
        assert "host-b" not in agent.pools
        assert [link.leaving for link in pool.links] == [True]
        assert len(agent.view.links()) == len(list(agent.view.streams())) == 1, "still shown"
        await talks(caller, accepted)
        far.pools["host-a"].invite()
        await until(lambda: far.pools["host-a"].last_error, "host-b is told that it is no peer of host-a")
        assert "wrong_host" in str(far.pools["host-a"].last_error)
        caller.close()
        await accepted.rest()
        accepted.close()
        await until(lambda: not agent.pools.everywhere, "the pool is gone")
        assert "host-b" not in agent.pump.budget.accounts


async def test_the_streams_of_a_removed_peer_end_in_the_end() -> None:
    async with mesh() as hosts:
        service = await hosts.pair("tcp", "tcp")
        agent = hosts.agents["host-a"]
        caller = hosts.call(kind="tcp")
        accepted = await service.accept()
        agent.apply(hosts.config("host-a", {"limits": {"stop_timeout": "50ms"}}))
        assert await caller.rest() == (b"", True)
        assert await accepted.rest() == (b"", True)
        await until(lambda: not agent.pools.everywhere, "the pool is gone")


async def test_a_peer_comes_back_while_its_streams_still_run() -> None:
    async with mesh() as hosts:
        service = await hosts.pair(**PATIENT)
        agent = hosts.agents["host-a"]
        caller = hosts.call()
        accepted = await service.accept()
        pool, config = agent.pools["host-b"], agent.config
        gone = msgspec.structs.replace(config, peers={})
        for _ in range(3):
            agent.apply(gone)
            agent.apply(config)
        assert agent.pools["host-b"] is pool
        again = hosts.call()
        await talks(again, await service.accept())
        await talks(caller, accepted)
        caller.close()
        await until(lambda: [link.leaving for link in pool.links] == [False], "the old link has ended")
        assert agent.pools.everywhere == [pool]


async def test_a_peer_comes_back_after_its_pool_has_gone() -> None:
    async with mesh() as hosts:
        service = await hosts.pair(**PATIENT)
        agent = hosts.agents["host-a"]
        pool, config = agent.pools["host-b"], agent.config
        agent.apply(msgspec.structs.replace(config, peers={}))
        await until(lambda: not agent.pools.everywhere, "the pool is gone")
        agent.apply(config)
        assert agent.pools["host-b"] is not pool
        await talks(hosts.call(), await service.accept())


async def test_a_changed_address_is_for_new_dials() -> None:
    async with mesh() as hosts:
        service = await hosts.pair(**PATIENT)
        agent = hosts.agents["host-a"]
        caller = hosts.call()
        accepted = await service.accept()
        pool = agent.pools["host-b"]
        dials, link = pool.dials, pool.links[0]
        agent.apply(hosts.config("host-a", {**moved(hosts), **upstream(hosts, "echo"), **PATIENT}))
        await talks(caller, accepted)
        assert pool.links == [link]
        assert pool.dials == dials
        assert agent.view.status().peers[0].address == hosts.addresses["host-d"]
        link.drain()
        await until(lambda: pool.dials > dials and pool.last_error, "a dial to where nobody is")
        agent.apply(hosts.config("host-a", {**hosts.peers(b=["echo"]), **upstream(hosts, "echo"), **PATIENT}))
        await talks(hosts.call(), await service.accept())


def moved(hosts: Mesh) -> dict[str, Any]:
    """host-b is said to be where nobody listens."""
    return {"peers": {"host-b": {"address": hosts.addresses["host-d"], "services": ["echo"]}}}


async def test_a_dial_to_an_address_that_is_none_any_more_is_given_up() -> None:
    """The old address answers nothing at all, so that the dial would take its whole time."""
    async with mesh() as hosts:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            address = f"127.0.0.1:{silent.getsockname()[1]}"
            service = hosts.service()
            await hosts.start("host-b", **hosts.peers(a=[]), services={"echo": {"deliver": service.address}})
            slow = {"links": {"dial_timeout": "1h"}, "limits": {"open_timeout": "1h"}}
            old = {"peers": {"host-b": {"address": address, "services": ["echo"]}}}
            agent = await hosts.start("host-a", **old, **upstream(hosts, "echo"), **slow)
            caller = hosts.call()
            await until(lambda: agent.pools["host-b"].dialling and agent.pools["host-b"].waiting, "a call that waits")
            agent.apply(hosts.config("host-a", {**hosts.peers(b=["echo"]), **upstream(hosts, "echo"), **slow}))
            await talks(caller, await service.accept())
            assert agent.pools["host-b"].last_error is None


async def test_a_call_that_waits_goes_where_the_service_is_now() -> None:
    async with mesh() as hosts:
        service = hosts.service()
        await hosts.start("host-c", **hosts.peers(a=[]), services={"echo": {"deliver": service.address}})
        agent = await hosts.start("host-a", **hosts.peers(b=["echo"], c=[]), **upstream(hosts, "echo"), **PATIENT)
        caller = hosts.call()
        await until(lambda: agent.pools["host-b"].waiting, "it waits for host-b, which is not there")
        agent.apply(hosts.config("host-a", {**hosts.peers(c=["echo"]), **upstream(hosts, "echo"), **PATIENT}))
        await talks(caller, await service.accept())
        await until(lambda: not agent.outbound.context.calls or agent.pools["host-c"].streams, "on its link")


async def test_a_call_that_waits_for_a_peer_that_nobody_replaces_fails(logs: list[MutableMapping[str, Any]]) -> None:
    async with mesh() as hosts:
        agent = await hosts.start("host-a", **hosts.peers(b=["echo"]), **upstream(hosts, "echo"), **PATIENT)
        caller = hosts.call()
        await until(lambda: agent.pools["host-b"].waiting, "it waits")
        agent.apply(msgspec.structs.replace(agent.config, peers={}))
        assert await caller.rest() == (b"", False)
        [ended] = [entry for entry in logs if entry["event"] == "stream ended"]
        assert ended["reason"] == CloseReason.PEER_UNREACHABLE.label


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_call_that_waits_ends_with_its_upstream_and_its_peer(
    at_once: bool, logs: list[MutableMapping[str, Any]]
) -> None:
    """Nobody would dial for it any more. As long as the peer is there, it waits on."""
    async with mesh() as hosts:
        agent = await hosts.start("host-a", **hosts.peers(b=["echo"]), **upstream(hosts, "echo"), **PATIENT)
        caller = hosts.call()
        await until(lambda: agent.pools["host-b"].waiting, "it waits")
        if not at_once:
            agent.apply(msgspec.structs.replace(agent.config, upstreams={}))
            assert agent.pools["host-b"].waiting
            assert agent.outbound.context.calls
        agent.apply(msgspec.structs.replace(agent.config, peers={}, upstreams={}))
        assert not agent.outbound.context.calls
        assert await caller.rest() == (b"", False)
        [ended] = [entry for entry in logs if entry["event"] == "stream ended"]
        assert ended["reason"] == CloseReason.PEER_UNREACHABLE.label
        assert ended["detail"] == "upstream and peer were removed from the configuration"


async def test_a_call_that_is_not_delivered_after_its_upstream_and_its_peer_were_removed_waits_for_nobody() -> None:
    async with mesh() as hosts:
        agent = await hosts.start(
            "host-a", **hosts.peers(b=["echo"]), **upstream(hosts, "echo"), **PATIENT,
            services={"echo": {"deliver": "unix:/nowhere", "connect_timeout": "20s"}},
        )  # fmt: skip
        caller = hosts.call()
        await until(lambda: agent.outbound.context.calls, "this host is asked")
        agent.apply(msgspec.structs.replace(agent.config, peers={}, upstreams={}, services={}))
        assert await caller.rest() == (b"", False)


async def test_a_peer_that_an_upstream_needs_is_dialled_then() -> None:
    async with mesh() as hosts:
        await hosts.start("host-b", **hosts.peers(a=[]))
        agent = await hosts.start("host-a", **hosts.peers(b=["echo"]))
        assert not agent.pools["host-b"].dials
        agent.apply(hosts.config("host-a", {**hosts.peers(b=["echo"]), **upstream(hosts, "echo")}))
        await until(lambda: agent.pools["host-b"].up, "a link")


async def test_an_upstream_that_is_removed_takes_no_calls_and_its_streams_go_on() -> None:
    async with mesh() as hosts:
        service = await hosts.pair(**PATIENT)
        agent = hosts.agents["host-a"]
        caller = hosts.call()
        accepted = await service.accept()
        agent.apply(msgspec.structs.replace(agent.config, upstreams={}))
        assert not path_of(hosts.upstream("host-a", "echo")).exists()
        with pytest.raises(OSError):
            hosts.call()
        await talks(caller, accepted)


async def test_two_upstreams_exchange_their_sockets() -> None:
    """Nobody finds no socket meanwhile: they are the same ones."""
    async with mesh() as hosts:
        services = {name: hosts.service(name) for name in ("echo", "web")}
        delivered = {name: {"deliver": service.address} for name, service in services.items()}
        agent = await hosts.start("host-a", services=delivered, **upstream(hosts, "echo", "web"))
        inodes = [path_of(hosts.upstream("host-a", name)).stat().st_ino for name in services]
        sockets = [hosts.upstream("host-a", name) for name in ("web", "echo")]
        swapped = {name: {"listen": address} for name, address in zip(("echo", "web"), sockets, strict=True)}
        agent.apply(hosts.config("host-a", {"services": delivered, "upstreams": swapped}))
        assert [path_of(hosts.upstream("host-a", name)).stat().st_ino for name in services] == inodes
        await talks(hosts.call(name="echo"), await services["web"].accept())
        await talks(hosts.call(name="web"), await services["echo"].accept())


async def test_the_mode_of_a_socket_that_is_in_use() -> None:
    async with mesh() as hosts:
        agent = await hosts.start("host-a", **hosts.peers(b=["echo"]), **upstream(hosts, "echo"))
        path = path_of(hosts.upstream("host-a", "echo"))
        inode = path.stat().st_ino
        agent.apply(hosts.config("host-a", {**hosts.peers(b=["echo"]), **upstream(hosts, "echo", mode="0600")}))
        assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_ino) == (0o600, inode)


async def test_what_a_service_is_now_holds_for_new_calls() -> None:
    async with mesh() as hosts:
        old = await hosts.pair(**PATIENT)
        new = hosts.service("new")
        far = hosts.agents["host-b"]
        caller = hosts.call()
        accepted = await old.accept()
        far.apply(
            hosts.config("host-b", {**hosts.peers(a=[]), **PATIENT, "services": {"echo": {"deliver": new.address}}})
        )
        await talks(hosts.call(), await new.accept())
        await talks(caller, accepted)
        far.apply(
            hosts.config(
                "host-b", {**hosts.peers(a=[]), **PATIENT, "services": {"echo": {"deliver": new.address, "allow": []}}}
            )
        )
        assert await hosts.call().rest() == (b"", False)
        assert far.stats.failures == {CloseReason.NOT_ALLOWED: 1}
        far.apply(msgspec.structs.replace(far.config, services={}))
        assert await hosts.call().rest() == (b"", False)
        assert far.stats.failures == {CloseReason.NOT_ALLOWED: 1, CloseReason.NO_SUCH_SERVICE: 1}
        await talks(caller, accepted)
        assert far.view.status().services == []
        assert [far.inbound.open[name].count for name in far.inbound.open] == [2], "removed, and still in use"


async def test_rules_hold_within_the_host_too() -> None:
    async with mesh() as hosts:
        service = hosts.service()
        sections = {"services": {"echo": {"deliver": service.address}}, **upstream(hosts, "echo")}
        agent = await hosts.start("host-a", **sections)
        await talks(hosts.call(), await service.accept())
        sections["services"]["echo"]["allow"] = []
        agent.apply(hosts.config("host-a", sections))
        assert await hosts.call().rest() == (b"", False)
        assert agent.stats.failures == {CloseReason.NOT_ALLOWED: 1}


async def test_settings() -> None:
    async with mesh() as hosts:
        agent = await hosts.start("host-a", **hosts.peers(b=["echo"]), **upstream(hosts, "echo"))
        more = {
            "limits": {"memory": "8MiB", "opens_per_second": 7, "waiting_streams": 0, "stream_credit": "64KiB"},
            "links": {"max_per_peer": 5},
            "pool": {"idle_min": "2m", "idle_max": "2m"},
            "pump": {"busy_poll": "50us"},
        }
        agent.apply(hosts.config("host-a", {**hosts.peers(b=["echo"]), **upstream(hosts, "echo"), **more}))
        budget, pool = agent.pump.budget, agent.pools["host-b"]
        assert (budget.limit, budget.per_peer) == (8 << 20, 4 << 20)
        assert agent.hello("host-b", "s").opens_per_second == 7
        assert (pool.limit, pool.usage.terms.low, pool.usage.terms.high) == (5, 120.0, 120.0)
        assert agent.pump.busy_poll.told == "50 us"
        assert agent.hello("host-b", "s").stream_credit == 64 << 10
        caller = hosts.call()
        assert await caller.rest() == (b"", False)
        assert agent.stats.failures == {CloseReason.OVERLOADED: 1}


async def test_keys_that_only_a_start_reads_are_refused_all_at_once() -> None:
    async with mesh() as hosts:
        agent = await hosts.start("host-a", **hosts.peers(b=["echo"]), **upstream(hosts, "echo"))
        before = everything(agent)
        sections = {**hosts.peers(c=["web"]), **upstream(hosts, "web"), "links": {"listen": "127.0.0.1:1"}}
        with pytest.raises(NotApplied) as caught:
            agent.apply(msgspec.structs.replace(hosts.config("host-a", sections), mesh="other"))
        assert [problem.partition(": found ")[0] for problem in caught.value.problems] == ["links.listen", "mesh"]
        assert everything(agent) == before
        assert not path_of(hosts.upstream("host-a", "web")).exists()


@pytest.mark.parametrize("order", [("web", "taken"), ("taken", "web")])
async def test_a_socket_that_cannot_be_had_changes_nothing(order: tuple[str, str]) -> None:
    async with mesh() as hosts:
        agent = await hosts.start("host-a", **hosts.peers(b=["echo"]), **upstream(hosts, "echo"))
        path = path_of(hosts.upstream("host-a", "echo"))
        before = everything(agent)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            addresses = {
                "web": {"listen": hosts.upstream("host-a", "web")},
                "taken": {"listen": f"tcp:127.0.0.1:{taken.getsockname()[1]}"},
            }
            upstreams = {
                "echo": {"listen": f"unix:{path}", "mode": "0600"},
                **{name: addresses[name] for name in order},
            }
            config = hosts.config("host-a", {**hosts.peers(b=["echo", "web", "taken"]), "upstreams": upstreams})
            with pytest.raises(NotApplied, match=r"^upstreams\.taken\.listen: tcp:.*: the port is in use$"):
                agent.apply(config)
        assert everything(agent) == before
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        assert not path_of(hosts.upstream("host-a", "web")).exists()
        hosts.call().close()


async def test_a_thousand_peers_come_and_go_one_at_a_time() -> None:
    """What an event of a control plane does: one peer of many differs. (No figure: what counts is what is touched.)"""
    async with mesh() as hosts:
        agent = await hosts.start("host-a")
        peer = next(iter(hosts.config("host-a", hosts.peers(b=["s0"])).peers.values()))
        peers = {
            f"host-{number}": PeerConfig(
                address=peer.address, services=tuple(f"s{number * 5 + each}" for each in range(5))
            )
            for number in range(1000)
        }
        base = msgspec.structs.replace(agent.config, peers=peers)
        agent.apply(base)
        assert len(agent.pools) == 1000
        pools = dict(agent.pools)
        touched: list[str] = []
        for pool in pools.values():
            pool.adopt = lambda *_, name=pool.name: touched.append(name)  # type: ignore[method-assign]
        for number in range(20):
            found = agent.apply(with_peer(base, f"host-{number}", PeerConfig(address=peer.address)))
            assert found.peers <= {f"host-{number}", f"host-{number - 1}"}
        assert set(touched) == {f"host-{number}" for number in range(20)}
        assert dict(agent.pools) == pools
        agent.apply(msgspec.structs.replace(base, peers={}))
        await until(lambda: not agent.pools.everywhere, "all are gone")


def with_peer(config: Config, name: str, peer: PeerConfig) -> Config:
    return msgspec.structs.replace(config, peers={**config.peers, name: peer})


@pytest.mark.failure("29", "34")
async def test_a_source_that_no_interface_has_is_said(logs: list[MutableMapping[str, Any]]) -> None:
    """At the start, and when the file names another one; the proxy serves what it can."""

    def missing() -> list[tuple[str, str]]:
        event = "no interface of this host has an address that connections come from"
        return [(entry["service"], entry["source"]) for entry in logs if entry["event"] == event]

    async with mesh() as hosts:
        web = {"deliver": "tcp:localhost:9", "source": ["127.0.0.1", "192.0.2.5"]}
        agent = await hosts.start("host-a", services={"web": web})
        assert missing() == [("web", "192.0.2.5")]
        again = hosts.config("host-a", {"services": {"web": {**web, "source": ["fd00:dead::5", "127.0.0.1"]}}})
        assert agent.apply(again)
        assert missing()[1:] == [("web", "fd00:dead::5")]
