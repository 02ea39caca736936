"""A door that closes and opens while somebody serves behind it."""

from __future__ import annotations

import socket

import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from proxy.links.acceptgate import AcceptGate, serve_gated


async def test_it_serves_while_it_is_open() -> None:
    gate, serving = AcceptGate(), []

    async def serve() -> None:
        serving.append("in")
        try:
            await trio.sleep_forever()
        finally:
            serving.append("out")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(gate.guard, serve)
        await wait_all_tasks_blocked()
        gate.close()
        gate.close()
        await wait_all_tasks_blocked()
        assert (serving, gate.is_open) == (["in", "out"], False)
        gate.open()
        gate.open()
        await wait_all_tasks_blocked()
        assert (serving, gate.is_open) == (["in", "out", "in"], True)
        nursery.cancel_scope.cancel()
    assert serving == ["in", "out", "in", "out"]


async def test_closed_and_opened_at_once_is_open() -> None:
    gate, entered = AcceptGate(), 0

    async def serve() -> None:
        nonlocal entered
        entered += 1
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(gate.guard, serve)
        await wait_all_tasks_blocked()
        gate.close()
        gate.open()
        await wait_all_tasks_blocked()
        assert entered == 2
        gate.close()
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_closed_before_it_begins() -> None:
    gate = AcceptGate()
    gate.close()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            raise AssertionError("served")

        nursery.start_soon(gate.guard, serve)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_a_closed_door_stops_no_handler_and_refuses_nobody() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    gate, handled = AcceptGate(), 0

    async def echo(stream: trio.SocketStream) -> None:
        nonlocal handled
        handled += 1
        async with stream:
            async for piece in stream:
                await stream.send_all(piece)

    async with trio.open_nursery() as nursery:
        await nursery.start(serve_gated, gate, echo, [listener], "here")
        first = await trio.testing.open_stream_to_socket_listener(listener)
        await first.send_all(b"1")
        assert await first.receive_some(1) == b"1"
        gate.close()
        second = await trio.testing.open_stream_to_socket_listener(listener)
        await second.send_all(b"2")
        await first.send_all(b"3")
        assert await first.receive_some(1) == b"3"
        await wait_all_tasks_blocked()
        assert handled == 1
        gate.open()
        assert await second.receive_some(1) == b"2"
        nursery.cancel_scope.cancel()
    await first.aclose()
    await second.aclose()
    assert listener.socket.fileno() >= 0, "its giver's to close"
    listener.socket.close()


async def test_a_listener_may_be_closed_right_behind_its_gate() -> None:
    """As after a handover, in the round of the event loop in which somebody connects: trio takes either task first."""
    for _ in range(20):
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setblocking(False)
        gate, listener = AcceptGate(), trio.SocketListener(trio.socket.from_stdlib_socket(listening))
        here, there = socket.socketpair()

        async def close(here: socket.socket, gate: AcceptGate, listening: socket.socket) -> None:
            await trio.lowlevel.wait_readable(here)
            gate.close()
            listening.close()

        with here, there:
            async with trio.open_nursery() as nursery:
                await nursery.start(serve_gated, gate, trio.aclose_forcefully, [listener], "here")
                nursery.start_soon(close, here, gate, listening)
                await wait_all_tasks_blocked()
                with socket.create_connection(listening.getsockname()):
                    there.send(b"1")
                    await wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()


async def test_without_listeners_it_waits_for_some() -> None:
    """And does nothing until then."""
    gate, listeners, come = AcceptGate(), list[trio.SocketListener](), trio.Event()

    async def handler(stream: trio.SocketStream) -> None:
        come.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(serve_gated, gate, handler, listeners, "nowhere")
        await wait_all_tasks_blocked()
        with socket.create_server(("127.0.0.1", 0)) as server:
            listeners.append(trio.SocketListener(trio.socket.from_stdlib_socket(server)))
            gate.close()
            gate.open()
            async with await trio.testing.open_stream_to_socket_listener(listeners[0]):
                with trio.fail_after(20):
                    await come.wait()
            nursery.cancel_scope.cancel()
