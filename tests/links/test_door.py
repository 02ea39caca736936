"""A door that closes and opens while somebody serves behind it."""

from __future__ import annotations

import socket

import trio
from trio.testing import wait_all_tasks_blocked

from proxy.links.door import Door, duplicate


async def test_it_serves_while_it_is_open() -> None:
    door, serving = Door(), []

    async def serve() -> None:
        serving.append("in")
        try:
            await trio.sleep_forever()
        finally:
            serving.append("out")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(door.guard, serve)
        await wait_all_tasks_blocked()
        door.close()
        door.close()
        await wait_all_tasks_blocked()
        assert (serving, door.is_open) == (["in", "out"], False)
        door.open()
        door.open()
        await wait_all_tasks_blocked()
        assert (serving, door.is_open) == (["in", "out", "in"], True)
        nursery.cancel_scope.cancel()
    assert serving == ["in", "out", "in", "out"]


async def test_closed_and_opened_at_once_is_open() -> None:
    door, entered = Door(), 0

    async def serve() -> None:
        nonlocal entered
        entered += 1
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(door.guard, serve)
        await wait_all_tasks_blocked()
        door.close()
        door.open()
        await wait_all_tasks_blocked()
        assert entered == 2
        door.close()
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_closed_before_it_begins() -> None:
    door = Door()
    door.close()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            raise AssertionError("served")

        nursery.start_soon(door.guard, serve)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_a_duplicate_takes_from_the_same_queue() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)), listener.socket:
        copy = duplicate(listener)
        accepted = await copy.accept()
        await accepted.aclose()
        await copy.aclose()
        with socket.create_connection(("127.0.0.1", port)):
            await (await listener.accept()).aclose()
