"""What the log says of links that come and go."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from proxy.errors import CloseReason
from proxy.links.carry import HandshakeResult
from proxy.links.handshake import Hello
from proxy.mux.frames import FrameKind, encode, encode_reason
from tests.links.wire import tcp_pair
from tests.pool.hosts import Dialling, observed, pool, running, until


@pytest.mark.failure(18, "27")
async def test_a_peer_whose_links_come_and_go_does_not_fill_the_log() -> None:
    home = pool()
    async with running(home):
        with capture_logs() as logs:
            for number in range(100):
                mine, other = tcp_pair()
                hello = Hello(
                    host="host-b", to="host-a", instance="2", session=f"{number}", stream_credit=65536, max_streams=10
                )
                other.close()
                await home.attend(
                    mine,
                    HandshakeResult(mine, hello, encode(FrameKind.GOAWAY, 0, encode_reason(CloseReason.STOPPED))),
                    False,
                )
        assert {(entry["event"], entry["kind"]) for entry in logs} == {
            ("link up", ("host-b", False)),
            ("link down", ("host-b", CloseReason.STOPPED)),
        }, "what is summarised"
        assert home.links == []


@pytest.mark.failure(7)
async def test_after_the_time_streams_end_with_that_reason(dialling: Dialling) -> None:
    home = pool(needed=True, resume_timeout=0.05)
    with capture_logs() as logs:
        async with running(home):
            theirs = dialling.succeeds()
            await until(lambda: home.up)
            observer = observed(home)
            theirs.close()
            await until(lambda: observer.told == ["resume_timeout"])
            await until(lambda: not list(home.sessions))
    [ended] = [entry for entry in logs if entry["event"] == "session ended"]
    assert (ended["reason"], ended["streams"], ended["log_level"]) == ("resume_timeout", 1, "warning")
    assert ended["detail"] == "no link for 0.05 s on which anything was acknowledged"
