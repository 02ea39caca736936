"""A stream of which nobody heard when it began; tests/telemetry/test_tap.py has more of them."""

from __future__ import annotations

import os

from proxy.mux.frames import UNKNOWN_UID, Open
from proxy.pump.knownstream import KnownStream
from tests.pump.agents import mesh


async def test_what_is_known() -> None:
    async with mesh() as hosts:
        service = await hosts.pair()
        caller = hosts.call()
        await caller.send(b"hello")
        await (await service.accept()).read(5)
        [lane] = hosts.agents["host-a"].view._lanes()
        known = KnownStream(lane, "outbound", Open("echo", 1000, "shop")).facts()
        assert (known.service, known.caller, known.uid, known.pid) == ("echo", "shop", 1000, os.getpid())
        assert (known.peer, known.sent, known.open, known.first_byte) == ("host-b", 5, None, None)
        there = KnownStream(lane, "inbound", Open("echo", UNKNOWN_UID)).facts()
        assert (there.caller, there.uid, there.pid) == ("", None, None)
