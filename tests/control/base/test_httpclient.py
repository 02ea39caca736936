from __future__ import annotations

import gc
import ssl

import httpx
import pytest
import trio

from control.base.httpclient import RequestBody, closing_given_up
from tests.tools.sockets import fds_since, open_fds


@pytest.mark.parametrize("ending", ["cancelled", "failed"])
async def test_a_handshake_that_is_given_up_leaves_no_socket(ending: str) -> None:
    """Seen as a ResourceWarning in whichever test ran when the garbage was collected."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    url = f"https://127.0.0.1:{listener.socket.getsockname()[1]}/"
    before = open_fds()
    gc.collect()
    gc.disable()
    try:
        async with httpx.AsyncClient(verify=ssl.create_default_context(), trust_env=False, timeout=None) as client:
            async with trio.open_nursery() as nursery:

                async def ask() -> None:
                    try:
                        await client.get(url, extensions={"trace": closing_given_up()})
                    except httpx.TransportError:
                        assert ending != "cancelled"

                nursery.start_soon(ask)
                async with await listener.accept() as server:
                    # It has begun: this is its first message.
                    assert await server.receive_some()
                    if ending == "cancelled":
                        nursery.cancel_scope.cancel()
                    else:
                        await server.send_all(b"junk, not TLS\r\n")
        assert not fds_since(before)
    finally:
        gc.enable()
        await listener.aclose()


async def test_a_request_that_is_given_up_while_it_is_sent_leaves_no_generator() -> None:
    """Seen as trio's ResourceWarning about a generator that was not exhausted."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/"
    body = bytes(64 << 20)  # more than the kernel takes from a client whose server does not read
    async with listener, httpx.AsyncClient(trust_env=False) as client, trio.open_nursery() as nursery:
        request = client.build_request("POST", url, content=body)
        request.stream = RequestBody(body)
        nursery.start_soon(client.send, request)
        server = await listener.accept()
        await server.receive_some(1)
        nursery.cancel_scope.cancel()
    await server.aclose()
    gc.collect()


async def test_a_body_can_be_sent_again() -> None:
    body = RequestBody(b"once")
    assert [chunk async for chunk in body] == [chunk async for chunk in body] == [b"once"]
    assert [chunk async for chunk in RequestBody(b"")] == []
