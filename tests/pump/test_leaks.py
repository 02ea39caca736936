"""A million streams through two pumps leave nothing: no descriptor, no object, no byte, no reference."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from proxy.errors import CloseReason
from tests.pump.rig import KINDS, Rig, Stream, rig, until
from tests.pump.test_churn import acknowledged, check_nothing_left, forget
from tests.tools.leaks import SHARED, Held, grown, held
from tests.tools.whole import whole

STREAMS = whole(1_000_000, quick=1_000)
BATCH = 100
WARM = 5
"""Batches before anything is counted: buffers and caches have their size then."""
FEW = STREAMS // 5
"""Growth that is no leak: a leak is one for each stream. What the interpreter itself keeps comes and goes."""
BYTES = 1 << 19
"""The same for bytes, beside a fifth of a byte for each stream: the C library's own."""


@pytest.fixture(autouse=True)
def many_descriptors() -> Iterator[None]:
    """Four for each stream that is open; the usual soft limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def batch(joined: Rig, number: int) -> None:
    """Streams that say something both ways and end in one of three ways; and a few calls that are refused."""
    handover = joined.handover
    kind, handover.kind = KINDS[number % 2], KINDS[number // 2 % 2]
    called = [joined.call(kind, early=b"question") for _ in range(BATCH)]
    streams = []
    for caller, record in called:
        service, inbound = await handover.next.receive()
        streams.append(Stream(caller, service, record, inbound))
    handover.refuse = CloseReason.CONNECT_FAILED
    refused = [joined.call(kind, early=b"question") for _ in range(BATCH // 10)]
    for caller, record in refused:
        assert await record.ended() is CloseReason.CONNECT_FAILED
        caller.close()
    handover.refuse = None
    for stream in streams:
        assert await stream.service.read(8) == b"question"
        await stream.service.send(b"answer")
    for position, stream in enumerate(streams):
        assert await stream.caller.read(6) == b"answer"
        if position % 3 == 0:
            stream.caller.abort()
        elif position % 3 == 1:
            stream.service.finish()
        else:
            stream.caller.close()
    for position, stream in enumerate(streams):
        if position % 3 == 1:
            assert (await stream.caller.rest()).received == b""
            stream.caller.close()
        stream.service.close()
    for stream in streams:
        await stream.over()


async def at_rest(joined: Rig) -> Held:
    """What is held while no stream is open and nothing is remembered of any, but for slabs, which the pumps count."""
    await until(lambda: acknowledged(joined), "closed ids forgotten")
    check_nothing_left(joined)
    forget(joined)
    found = held(SHARED)
    return found._replace(bytes=found.bytes - sum(host.pump.slabs.bytes_held for host in (joined.a, joined.b)))


@pytest.mark.timeout(7200)
@pytest.mark.failure(1)
async def test_streams_leave_nothing() -> None:
    async with rig(patience=7200) as joined:
        for number in range(WARM):
            await batch(joined, number)
        before = await at_rest(joined)
        for number in range(STREAMS // BATCH):
            await batch(joined, number)
            forget(joined)
        after = await at_rest(joined)
    more = grown(before, after, SHARED)
    allowed = {"bytes": BYTES + FEW, "descriptors": 0}
    assert not {what: count for what, count in more.items() if count > allowed.get(what, FEW)}
