"""Pools that are told of this host's addresses."""

from __future__ import annotations

import socket

import pytest
import trio
from structlog.testing import capture_logs

from proxy.agent import addresswatch
from proxy.agent.addresswatch import AddressWatch
from proxy.errors import CloseReason
from proxy.netdev.observe.watch import AddressLook
from tests.pump.agents import mesh
from tests.pump.rig import until

pytestmark = pytest.mark.failure("21c")


async def test_a_link_whose_address_is_gone_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """All addresses of 127.0.0.0/8 are there, so the look is another host's."""
    async with mesh() as hosts:
        service = await hosts.pair()
        agent = hosts.agents["host-a"]
        pool = agent.pools["host-b"]
        await until(lambda: pool.up, "the link")
        [first] = pool.links
        caller = hosts.call()
        await caller.send(b"x")
        accepted = await service.accept()
        assert await accepted.read(1) == b"x"
        own = hosts.addresses["host-a"].split(":")[0]
        assert agent.pools.bound() == ({own}, False)
        asked: list[set[str]] = []

        def gone(bound: set[str]) -> AddressLook:
            asked.append(bound)
            return AddressLook(frozenset(), frozenset(bound))

        monkeypatch.setattr(addresswatch, "look", gone)
        await AddressWatch(agent.pools)._changed()
        assert asked[0] == {own}  # the agent may look as well
        assert (first.reason, first.detail) == (
            CloseReason.LINK_LOST,
            f"this host does not have the address {own} any more",
        )
        await until(lambda: pool.up, "another link")
        await caller.send(b"y")
        assert await accepted.read(1) == b"y"


async def test_nothing_is_read_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    async with mesh() as hosts:
        agent = await hosts.start("host-a", **hosts.peers(b=["echo"]))
        monkeypatch.setattr(addresswatch, "look", None)
        told: list[bool] = []
        await AddressWatch(agent.pools, lambda: told.append(True))._changed()
        assert told, "links may listen there all the same"


@pytest.mark.parametrize("error", [PermissionError(1, "Operation not permitted"), OSError(24, "Too many open files")])
async def test_what_cannot_be_read_changes_nothing(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    def fails(bound: set[str]) -> AddressLook:
        raise error

    async with mesh() as hosts:
        await hosts.pair()
        agent = hosts.agents["host-a"]
        await until(lambda: agent.pools["host-b"].up, "the link")
        monkeypatch.setattr(addresswatch, "look", fails)
        with capture_logs() as logs:
            await AddressWatch(agent.pools)._changed()
        assert {entry["error"] for entry in logs} == {error.strerror}
        assert agent.pools["host-b"].up


async def test_where_there_is_no_netlink(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> socket.socket:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(addresswatch, "open_watch", refused)
    async with mesh() as hosts:
        with capture_logs() as logs:
            agent = await hosts.start("host-a", **hosts.peers(b=["echo"]))
            with trio.fail_after(20):
                await AddressWatch(agent.pools).run()
        said = [entry for entry in logs if entry["event"] == "cannot watch this host's addresses"]
        assert {entry["error"] for entry in said} == {"Operation not permitted"}
