from __future__ import annotations

import gc
import ssl

import httpx
import pytest
import trio

from control.base.handshakes import closing_given_up
from tests.tools.sockets import open_fds


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
        assert open_fds() == before
    finally:
        gc.enable()
        await listener.aclose()
