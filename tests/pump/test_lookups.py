"""Look-ups of names in threads of their own: one a name, a bounded number, and nobody waits for another name's."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import trio
import trio.testing

from proxy.pump import lookups
from proxy.pump.lookups import Answer, Found, LookUps
from tests.pump.rig import until
from tests.tools.sockets import PATIENCE

HERE: Found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]


class NameServer:
    """Blocks, as getaddrinfo does, for names that begin with "silent", until `release`."""

    def __init__(self) -> None:
        self.asked = Counter[str]()
        self._open = threading.Event()

    def __call__(self, host: str | bytes, *rest: Any) -> Found:
        name = host.decode() if isinstance(host, bytes) else host
        self.asked[name] += 1
        if name.startswith("silent"):
            self._open.wait(PATIENCE)
        if name.startswith("nowhere"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return HERE

    def release(self) -> None:
        self._open.set()


@pytest.fixture
def server() -> Iterator[NameServer]:
    server = NameServer()
    yield server
    server.release()


async def answer(asked: LookUps, name: str) -> Found:
    return await asked.getaddrinfo(name.encode(), 80)


async def test_an_answer(server: NameServer) -> None:
    assert await answer(LookUps(server), "here") == HERE


async def test_the_c_library_s_answer() -> None:
    found = await LookUps().getaddrinfo(b"localhost", 80, type=socket.SOCK_STREAM)
    assert {sockaddr[0] for *_, sockaddr in found} <= {"127.0.0.1", "::1"}


async def test_an_error_is_raised_where_it_was_asked_for(server: NameServer) -> None:
    with pytest.raises(socket.gaierror, match="not known"):
        await answer(LookUps(server), "nowhere")


async def test_a_name_that_cannot_be_one() -> None:
    with pytest.raises(OSError, match="label"):
        await LookUps(_too_long).getaddrinfo(b"x", 80)


def _too_long(*question: Any) -> Found:
    raise UnicodeError("label too long")


@pytest.mark.failure("29")
async def test_names_without_an_answer_have_one_thread_each_and_keep_nobody_waiting(server: NameServer) -> None:
    asked = LookUps(server)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for number in range(10):
                for _ in range(20):
                    nursery.start_soon(answer, asked, f"silent-{number}")
            await until(lambda: len(server.asked) == 10, "all names are asked for")
            assert await answer(asked, "here") == HERE
            assert asked.running == 10
            server.release()
    assert set(server.asked.values()) == {1}, "whoever asks meanwhile gets the same answer"


@pytest.mark.failure("29")
async def test_threads_are_bounded_and_each_name_gets_its_turn(server: NameServer) -> None:
    asked, told = LookUps(server), list[Answer]()
    with trio.fail_after(PATIENCE):
        for number in range(lookups.THREADS + 5):
            asked.start((f"silent-{number}", 0), told.append)
        await until(lambda: len(server.asked) == lookups.THREADS, "as many as may be under way")
        asked.start(("here", 0), told.append)
        assert asked.running == lookups.THREADS
        server.release()
        await until(lambda: len(told) == lookups.THREADS + 6, "all answers")
    assert asked.running == 0


@pytest.mark.failure("29")
async def test_trio_asks_here_too_and_its_own_threads_stay_free(server: NameServer) -> None:
    """The look-ups of peers and control servers: `reload` reads its file in one of trio's threads."""
    asked = LookUps(server)
    asked.use()
    limiter = trio.to_thread.current_default_thread_limiter()
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for number in range(int(limiter.total_tokens) + 1):
                nursery.start_soon(trio.socket.getaddrinfo, f"silent-{number}", 80)
            await until(lambda: asked.running > limiter.total_tokens, "more than trio has threads")
            assert limiter.borrowed_tokens == 0
            assert await trio.to_thread.run_sync(lambda: "read") == "read"
            nursery.cancel_scope.cancel()


async def test_who_gives_up_leaves_the_answer_to_others(server: NameServer) -> None:
    asked = LookUps(server)
    with trio.move_on_after(0):
        await answer(asked, "silent")
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer, asked, "silent")
            await trio.testing.wait_all_tasks_blocked()
            await until(lambda: server.asked["silent"] == 1, "the look-up")
            server.release()
    assert server.asked["silent"] == 1


@pytest.mark.failure(18)
async def test_a_bug_in_who_asked_costs_nobody_else(server: NameServer) -> None:
    asked, told = LookUps(server), list[Answer]()

    def fail(answer: object) -> None:
        raise RuntimeError("a bug")

    asked.start(("here", 0), fail)
    asked.start(("here", 0), told.append)
    await until(lambda: bool(told), "the other one's answer")
    assert told[0] == HERE


async def test_names_of_addresses() -> None:
    assert await LookUps().getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV) == (
        "127.0.0.1",
        "80",
    )


def test_an_answer_after_the_end_is_nobody_s(server: NameServer) -> None:
    asked, told = LookUps(server), list[Answer]()

    async def main() -> None:
        asked.start(("silent", 0), told.append)
        await until(lambda: server.asked["silent"] == 1, "the look-up")

    trio.run(main)
    server.release()
    assert told == []


@pytest.mark.failure("29")
async def test_without_a_thread_there_is_no_answer_and_the_next_one_has_it(
    server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit of processes is reached: RLIMIT_NPROC, or pids.max of a container's cgroup."""
    asked, told = LookUps(server), list[Answer]()
    with monkeypatch.context() as limited:
        limited.setattr("trio._core._thread_cache.ThreadCache.start_thread_soon", no_thread)
        for _ in range(2):
            asked.start(("here", 0), told.append)
        asked.start(("there", 0), told.append)
        await until(lambda: len(told) == 3, "all answers")
    assert {str(answer) for answer in told} == {"[Errno 11] this machine gives this proxy no more threads"}
    assert asked.running == 0
    assert await answer(asked, "here") == HERE


def no_thread(*args: object) -> None:
    raise RuntimeError("can't start new thread")
