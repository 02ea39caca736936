from __future__ import annotations

from proxy.pump.stalls import Stalls
from proxy.pump.streamlog import NEVER, stalled, stream_id
from tests.pump.agents import mesh
from tests.pump.rig import until


async def test_ids_are_the_same_at_both_ends() -> None:
    async with mesh() as hosts:
        service = await hosts.pair()
        callers = []
        for _ in range(2):
            callers.append(hosts.call())
            await callers[-1].send(b"hello")
            await (await service.accept()).read(5)
        ends = [hosts.agents["host-a"].pools["host-b"], hosts.agents["host-b"].pools["host-a"]]
        await until(lambda: all(pool.streams == 2 for pool in ends), "the streams")
        ids = [{stream_id(lane) for each in pool.sessions for lane in each.streams.values()} for pool in ends]
        assert ids[0] == ids[1]
        assert len(ids[0]) == 2


def test_what_was_never_held_back_has_no_stalls() -> None:
    assert stalled(None, 5.0) == NEVER
    stalls = Stalls()
    stalls.from_sending(True, 1.0)
    assert stalled(stalls, 5.0).link == 4.0
