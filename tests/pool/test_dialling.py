"""A peer that is dialled: what fails, when there is another dial, and what a link was worth."""

from __future__ import annotations

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock, wait_all_tasks_blocked

from control.base.reading.addresses import TcpAddress
from proxy.config.schema import PeerConfig
from proxy.errors import CloseReason, HandshakeError
from proxy.pool import dialling as module
from tests.pool.hosts import Dialling, pool, running, until
from tests.pump.agents import mesh

NO_ANSWER = HandshakeError("Connection refused", CloseReason.PEER_UNREACHABLE)


async def test_failures_are_spaced_by_the_backoff(dialling: Dialling, autojump_clock: MockClock) -> None:
    home = pool(needed=True)
    start = trio.current_time()
    async with running(home):
        for _ in range(8):
            dialling.fails(NO_ANSWER)
            await dialling.begins()
        await dialling.begins()
        assert [round(at - start, 6) for at in dialling.at] == [0, 0.1, 0.3, 0.7, 1.5, 3.1, 6.3, 11.3, 16.3]
        assert home.last_error == "Connection refused"
        assert home.retry_at is None


async def test_between_two_dials_it_says_when_the_next_one_comes(dialling: Dialling, mock_clock: MockClock) -> None:
    home = pool(needed=True)
    async with running(home):
        dialling.fails(NO_ANSWER)
        await dialling.begins()
        await wait_all_tasks_blocked()
        assert not home.dialling
        assert home.retry_at == pytest.approx(trio.current_time() + 0.1)


async def test_the_same_failure_is_a_warning_once(dialling: Dialling, autojump_clock: MockClock) -> None:
    home = pool(needed=True)
    with capture_logs() as logs:
        async with running(home):
            for _ in range(3):
                dialling.fails(NO_ANSWER)
            dialling.fails(HandshakeError("No route to host", CloseReason.PEER_UNREACHABLE))
            dialling.fails(HandshakeError("the peer refused: duplicate", CloseReason.DUPLICATE))
            for _ in range(6):
                await dialling.begins()
    assert [(entry["log_level"], entry["error"]) for entry in logs] == [
        ("warning", "Connection refused"),
        ("debug", "Connection refused"),
        ("debug", "Connection refused"),
        ("warning", "No route to host"),
    ]
    assert home.last_error == "No route to host"


@pytest.mark.failure(18)
async def test_a_bug_that_a_peer_finds_costs_that_dial(dialling: Dialling, autojump_clock: MockClock) -> None:
    home = pool(needed=True)
    with capture_logs() as logs:
        async with running(home):
            dialling.fails(ValueError("nobody thought of that"))
            dialling.succeeds()
            await until(lambda: home.up)
    [entry] = [entry for entry in logs if entry["log_level"] == "error"]
    assert (entry["event"], entry["peer"]) == ("unexpected error on a link", "host-b")
    assert home.last_error is None


async def test_a_dial_ends_in_time(dialling: Dialling, autojump_clock: MockClock) -> None:
    home = pool(needed=True, dial_timeout=3)
    start = trio.current_time()
    async with running(home):
        await dialling.begins()
        await dialling.begins()
        assert dialling.at == [start, pytest.approx(start + 3.1)]
        assert home.last_error == "no answer in 3 s"


@pytest.mark.failure(9)
async def test_a_peer_that_accepts_and_hangs_up_is_not_dialled_in_a_loop(dialling: Dialling) -> None:
    home = pool(needed=True)
    async with running(home):
        dialling.succeeds().close()
        await dialling.begins()
        await until(lambda: home.retry_at is not None)
        assert not home.links
        assert len(dialling.at) == 1
        await dialling.begins()
        assert dialling.at[1] - dialling.at[0] >= 0.1


async def test_a_peer_that_moves_is_dialled_anew_and_what_failed_is_forgotten(
    dialling: Dialling, autojump_clock: MockClock
) -> None:
    home = pool(needed=True)
    async with running(home):
        for _ in range(5):
            dialling.fails(NO_ANSWER)
            await dialling.begins()
        await dialling.begins()
        began = trio.current_time()
        home.adopt(home._config, PeerConfig(address=TcpAddress("127.0.0.1", 2)), True)
        await dialling.begins()
        assert trio.current_time() == began, "the dial to the old address is given up"
        assert (home.last_error, home.peer.address.port, dialling.most) == (None, 2, 1)
        dialling.fails(NO_ANSWER)
        await dialling.begins()
        assert trio.current_time() - began == pytest.approx(0.1), "the backoff began afresh"


@pytest.mark.failure("24")
async def test_a_peer_that_has_stopped_is_dialled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a crash, however often it has refused dials since it was about to stop."""
    monkeypatch.setattr(module, "STABLE", 0.0)
    async with mesh() as hosts:
        await hosts.pair()
        home, far = hosts.agents["host-a"].pools["host-b"], hosts.agents["host-b"]
        await until(lambda: home.up)
        home._dialler.retry_at = trio.current_time() + 3600
        dials = home.dials
        far.draining.begin(0)
        await until(lambda: home.dials > dials)
