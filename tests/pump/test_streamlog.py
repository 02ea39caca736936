from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import pytest

from proxy.errors import CloseReason
from proxy.pump.stalls import Stalls
from proxy.pump.streamlog import NEVER, report, stalled, stream_id
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


@pytest.mark.failure(18, "27")
def test_failures_are_told_apart_by_service_direction_peer_and_reason(logs: list[MutableMapping[str, Any]]) -> None:
    for service, peer, detail in [("redis", "b", "one"), ("redis", "b", "two"), ("web", "b", ""), ("redis", None, "")]:
        report(CloseReason.NOT_ALLOWED, since=0.0, service=service, direction="inbound", peer=peer, detail=detail)
    report(CloseReason.OVERLOADED, since=0.0, service="redis", direction="inbound", peer="b")
    report(CloseReason.OVERLOADED, since=0.0, service="redis", direction="outbound", peer="b")
    kinds = [entry["kind"] for entry in logs]
    assert kinds[0] == kinds[1]
    assert len(set(kinds)) == 5


@pytest.mark.parametrize(
    ("reason", "level"),
    [(CloseReason.FINISHED, "debug"), (CloseReason.ABORTED, "info"), (CloseReason.LINK_LOST, "warning")],
)
def test_report(reason: CloseReason, level: str, logs: list[MutableMapping[str, Any]]) -> None:
    report(reason, since=0.0, service="redis", direction="inbound", peer=None, sent=7)
    [entry] = logs
    assert entry.pop("age_s") > 0
    assert entry == {
        "event": "stream ended",
        "log_level": level,
        "kind": ("redis", "inbound", None, reason),
        "reason": reason.label,
        "service": "redis",
        "direction": "inbound",
        "peer": None,
        "sent": 7,
    }
