"""The control server's own socket: it is there for as long as the server, whatever somebody does to its file."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from control.base.system.keptsocket import LOOK, KeptSocket
from control.base.system.unixsock import bind_unix
from control.server import localsocket
from tests.control.server.conftest import World, record
from tests.tools.sockets import open_fds

pytestmark = pytest.mark.failure("30")


async def answer(client: trio.SocketStream) -> None:
    async with client:
        await client.send_all(b"here")


async def test_again_and_again(mock_clock: MockClock) -> None:
    """Each time at the next look; who was connected stays so, and nothing is left over."""
    with tempfile.TemporaryDirectory(prefix="hl-") as folder:
        path = Path(folder, "control.sock")
        kept = KeptSocket(bind_unix(str(path)), mode=0o666)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(localsocket.serve, kept, answer, nursery)
            descriptors = len(open_fds())
            for _ in range(4):
                async with await trio.open_unix_socket(str(path)) as client:
                    path.unlink()
                    await wait_all_tasks_blocked()
                    mock_clock.jump(LOOK)
                    await wait_all_tasks_blocked()
                    assert await client.receive_some() == b"here"
            assert len(open_fds()) == descriptors
            nursery.cancel_scope.cancel()
        assert path.is_socket()
        kept.close()
        assert list(Path(folder).iterdir()) == []


@pytest.mark.parametrize("lose", [lambda path: path.unlink(), lambda path: shutil.rmtree(path.parent)])
async def test_the_administrator_gets_in_again(
    world: World, monkeypatch: pytest.MonkeyPatch, lose: Callable[[Path], object]
) -> None:
    monkeypatch.setattr(localsocket, "LOOK", 0.02)
    path = Path(world.config.run_dir, "control.sock")
    async with world.serving(), world.client("host-a") as a:
        await a.register(record("host-a"))
        lose(path)
        with trio.fail_after(20):
            while not path.is_socket():
                await trio.sleep(0.01)
        async with world.admin() as admin:
            assert [host.name for host in (await admin.hosts()).hosts] == ["host-a"]
