"""The proxy's own sockets, whose files somebody removes while it runs."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from control.api import admin
from control.api.messages import Status
from proxy.agent.agent import Agent
from proxy.agent.handover import ownsocket
from tests.agent.handover.test_sockets import changed, sockets_of
from tests.pump.agents import Mesh, mesh
from tests.pump.rig import until

pytestmark = pytest.mark.failure("30")


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownsocket, "LOOK", 0.02)


def in_place(agent: Agent) -> bool:
    return all(own.kept.bound.in_place for own in sockets_of(agent).own)


async def proxy(hosts: Mesh) -> tuple[Agent, Path]:
    """One that runs, and its run_dir."""
    await hosts.pair()
    agent = hosts.agents["host-a"]
    return agent, Path(agent.config.run_dir)


async def status(run_dir: Path) -> Status:
    found, _ = await trio.to_thread.run_sync(admin.ask, f"{run_dir}/admin.sock", "/status", Status)
    return found


@pytest.mark.parametrize("lose", [
    lambda run_dir: (run_dir / "admin.sock").unlink(),
    lambda run_dir: (run_dir / "next.sock").unlink(),
    shutil.rmtree,
], ids=["admin.sock", "next.sock", "the directory"])  # fmt: skip
async def test_commands_and_a_takeover_find_them_again(lose: Callable[[Path], object]) -> None:
    async with mesh() as hosts:
        agent, run_dir = await proxy(hosts)
        for _ in range(2):
            lose(run_dir)
            assert not in_place(agent)
            await until(lambda: in_place(agent), "all sockets")
            assert stat.S_IMODE(run_dir.stat().st_mode) == 0o700
            assert (await status(run_dir)).host == "host-a"
        await hosts.takeover("host-a", changed(hosts, True))
        await until(lambda: agent.draining.began, "it has let go")
        assert (await status(run_dir)).draining is False
        assert sorted(path.name for path in run_dir.glob("*.sock")) == ["admin.sock", "next.sock"]


async def test_during_a_takeover_nothing_is_bound_again() -> None:
    """The other process has been told which sockets there are."""
    async with mesh() as hosts:
        agent, run_dir = await proxy(hosts)
        assert sockets_of(agent).reserve() is None
        (run_dir / "admin.sock").unlink()
        for _ in range(5):
            await trio.sleep(0.02)
        assert not in_place(agent)
        sockets_of(agent).resume()
        await until(lambda: in_place(agent), "all sockets")


async def test_what_is_in_the_way_is_in_the_status() -> None:
    async with mesh() as hosts:
        agent, run_dir = await proxy(hosts)
        (run_dir / "next.sock").unlink()
        (run_dir / "next.sock").mkdir()
        await until(lambda: agent.view.missing(), "it is noticed")
        told = await status(run_dir)
        assert [line.partition(": ")[0] for line in told.missing] == [f"cannot listen on unix:{run_dir}/next.sock"]
        (run_dir / "next.sock").rmdir()
        await until(lambda: in_place(agent), "all sockets")
        assert agent.view.missing() == []


@pytest.mark.failure("21")
async def test_so_does_who_monitors() -> None:
    async with mesh() as hosts:
        path = hosts.folder / "m" / "status.sock"
        await hosts.start("host-a", telemetry={"socket": str(path), "mode": "0600"})
        agent = hosts.agents["host-a"]
        for lose in (path.unlink, lambda: shutil.rmtree(path.parent)):
            lose()
            await until(lambda: in_place(agent), "all sockets")
            found, _ = await trio.to_thread.run_sync(admin.ask, str(path), "/status", Status)
            assert found.host == "host-a"
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
