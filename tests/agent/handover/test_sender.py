"""The old side: everything is handed over, or nothing."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from control.base.system.commanders import Commanders
from proxy.agent.handover import sender as giving
from proxy.agent.handover.protocol import (
    HandoverDescriptors,
    HandoverError,
    HandoverOffer,
    HandoverSocket,
    HandoverState,
    HandoverStep,
    expect,
    receive,
    say,
    send,
)
from proxy.agent.handover.sender import OfferedListener, hand_over, serve
from proxy.links.acceptgate import AcceptGate
from proxy.mesh.statelock import StateLock
from proxy.outbound.sockets import InheritableListener
from tests.agent.handover.rig import RecordingSource, ends
from tests.tools.namespaces import PID, USER, contained


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as entries:
        yield entries


@pytest.fixture
def handover_sockets() -> Iterator[RecordingSource]:
    found = RecordingSource()
    yield found
    found.close()


async def offered(sock: trio.SocketStream, handover_sockets: RecordingSource) -> None:
    """Hear what is offered, and compare: nothing but names."""
    assert await receive(sock) == (HandoverOffer(version=2, host="host-a", pid=os.getpid(), sockets=2), [])
    for number, _ in enumerate(handover_sockets.listeners, 1):
        named = HandoverSocket(kind="upstream", address=f"tcp:127.0.0.1:{number}", family=socket.AF_INET)
        assert await receive(sock) == (named, [])


async def handed(sock: trio.SocketStream, handover_sockets: RecordingSource) -> None:
    """Say that it is ready, take what comes, and compare."""
    await send(sock, HandoverStep(word="ready"))
    await expect(sock, "yours")
    assert await receive(sock) == (HandoverState(), [])
    for number, listener in enumerate(handover_sockets.listeners, 1):
        message, descriptors = await receive(sock)
        assert message == HandoverDescriptors(kind="upstream", address=f"tcp:127.0.0.1:{number}")
        assert os.path.sameopenfile(descriptors[0], listener.fileno())
        os.close(*descriptors)


async def test_all_steps(handover_sockets: RecordingSource, logs: list[MutableMapping[str, Any]]) -> None:
    old, new = ends()
    async with new, trio.open_nursery() as nursery:
        nursery.start_soon(hand_over, old, handover_sockets)
        await offered(new, handover_sockets)
        assert handover_sockets.told == []
        await handed(new, handover_sockets)
        assert handover_sockets.told == [f"pause {os.getpid()}"]
        await send(new, HandoverStep(word="taken", seconds=12.0))
    assert handover_sockets.told == [f"pause {os.getpid()}", "retire 12"]
    assert [(entry["event"], entry["pid"]) for entry in logs] == [("proxy handed over", os.getpid())]


@pytest.mark.parametrize("step", ["offer", "ready", "yours"])
@pytest.mark.parametrize("how", ["gone", "no", "nonsense"])
async def test_the_new_process_ends_at_some_step(
    step: str, how: str, handover_sockets: RecordingSource, logs: list[MutableMapping[str, Any]]
) -> None:
    old, new = ends()
    async with trio.open_nursery() as nursery:
        async with new:
            nursery.start_soon(hand_over, old, handover_sockets)
            if step != "offer":
                await offered(new, handover_sockets)
            if step == "yours":
                await handed(new, handover_sockets)
            if how == "no":
                await send(new, HandoverStep(word="no", why="port in use"))
            elif how == "nonsense":
                await new.send_all(b"\0\0\0\2{]")
    assert handover_sockets.told[-1] == "resume"
    assert [entry["event"] for entry in logs] == ["proxy not handed over"]


async def test_it_may_change_its_mind(handover_sockets: RecordingSource, logs: list[MutableMapping[str, Any]]) -> None:
    old, new = ends()
    async with new, trio.open_nursery() as nursery:
        nursery.start_soon(hand_over, old, handover_sockets)
        await offered(new, handover_sockets)
        handover_sockets.why = "it is about to stop"
        await send(new, HandoverStep(word="ready"))
        with pytest.raises(HandoverError, match="it is about to stop"):
            await expect(new, "yours")
    assert handover_sockets.told == ["resume"]
    assert [entry["error"] for entry in logs] == ["it is about to stop"]


class Stopping(RecordingSource):
    """It closes its sockets as soon as it has begun to hand them over; their numbers go to something else."""

    lock = another = -1

    def sockets(self) -> Iterator[OfferedListener]:
        offer = list(super().sockets())
        self.lock = os.open(os.devnull, os.O_RDONLY)
        yield offer[0]
        yield offer[1]._replace(inheritable=InheritableListener(self.listeners[1], self.lock))

    def pause(self, pid: int) -> str | None:
        self.listeners[1].close()
        os.close(self.lock)
        self.another = os.open("/dev/zero", os.O_RDONLY)
        os.dup2(self.another, self.lock)
        return super().pause(pid)


async def test_told_to_stop_while_it_sends_its_sockets_it_sends_nothing_else_in_their_place() -> None:
    handover_sockets = Stopping()
    old, new = ends()
    async with new, trio.open_nursery() as nursery:
        nursery.start_soon(hand_over, old, handover_sockets)
        for _ in range(3):
            await receive(new)
        await send(new, HandoverStep(word="ready"))
        await expect(new, "yours")
        assert await receive(new) == (HandoverState(), [])
        _, descriptors = await receive(new)
        os.close(*descriptors)
        assert await receive(new) == (HandoverStep(word="no", why="it is about to stop"), [])
    assert handover_sockets.told == [f"pause {os.getpid()}", "resume"]
    for descriptor in {handover_sockets.another, handover_sockets.lock}:
        os.close(descriptor)
    handover_sockets.close()


async def test_it_refuses(handover_sockets: RecordingSource, logs: list[MutableMapping[str, Any]]) -> None:
    old, new = ends()
    handover_sockets.why = "it is about to stop"
    async with new, trio.open_nursery() as nursery:
        nursery.start_soon(hand_over, old, handover_sockets)
        assert await receive(new) == (HandoverStep(word="no", why="it is about to stop"), [])
    assert handover_sockets.told == []
    assert logs[-1]["error"] == "it is about to stop"


@pytest.mark.parametrize("limit", ["GETTING_READY", "ANSWER"])
async def test_a_new_process_that_says_nothing(
    limit: str, handover_sockets: RecordingSource, monkeypatch: pytest.MonkeyPatch, logs: list[MutableMapping[str, Any]]
) -> None:
    monkeypatch.setattr(giving, limit, 0.05)
    old, new = ends()
    async with new, trio.open_nursery() as nursery:
        nursery.start_soon(hand_over, old, handover_sockets)
        await offered(new, handover_sockets)
        if limit == "ANSWER":
            await send(new, HandoverStep(word="ready"))
    assert handover_sockets.told[-1] == "resume"
    assert logs[-1]["error"] == "the other process takes too long"


async def test_cancelled_it_keeps_everything(handover_sockets: RecordingSource) -> None:
    old, new = ends()
    async with new, trio.open_nursery() as nursery:
        nursery.start_soon(hand_over, old, handover_sockets)
        await offered(new, handover_sockets)
        await handed(new, handover_sockets)
        nursery.cancel_scope.cancel()
    assert handover_sockets.told[-1] == "resume"


@pytest.mark.parametrize("end", ["deadline", "cancelled"])
async def test_a_last_word_that_has_come_counts(
    end: str, handover_sockets: RecordingSource, mock_clock: MockClock, logs: list[MutableMapping[str, Any]]
) -> None:
    """The new process begins when it has said it: the old one must not go on, whatever happens at that moment."""
    old, new = ends()
    async with new, trio.open_nursery() as nursery:
        nursery.start_soon(hand_over, old, handover_sockets)
        await offered(new, handover_sockets)
        await handed(new, handover_sockets)
        if end == "deadline":
            mock_clock.jump(giving.ANSWER)  # the old side does not run meanwhile, and then both have happened
        else:
            nursery.cancel_scope.cancel()
        assert say(new, HandoverStep(word="taken", seconds=12.0))
    assert handover_sockets.told[-1] == "retire 12"
    assert [entry["event"] for entry in logs] == ["proxy handed over"]


@pytest.mark.parametrize("end", ["deadline", "cancelled"])
async def test_one_that_comes_too_late_is_not_heard(
    end: str, handover_sockets: RecordingSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the new process knows: it must not begin."""
    monkeypatch.setattr(giving, "ANSWER", 0.05)
    old, new = ends()
    async with new:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hand_over, old, handover_sockets)
            await offered(new, handover_sockets)
            await handed(new, handover_sockets)
            if end == "cancelled":
                nursery.cancel_scope.cancel()
        assert handover_sockets.told[-1] == "resume"
        assert not say(new, HandoverStep(word="taken"))
        with pytest.raises(HandoverError, match="takes too long" if end == "deadline" else "is ending"):
            await expect(new, "no")


LISTENER = """
import array, socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(sys.argv[1])
    while True:
        data, rights, _, _ = sock.recvmsg(65536, 1024)
        if not data:
            break
        sys.stdout.buffer.write(data)
        print(len(rights), file=sys.stderr)
        if b"offer" in data:
            body = b'{"type":"word","word":"ready"}'
            sock.sendall(len(body).to_bytes(4, "big") + body)
        if b"yours" in data or b"descriptors" in data:
            break
"""
"""A process that says it is ready for anything; its stderr has the number of ancillary messages with each piece."""


async def told(path: str, *kinds: tuple[str, ...]) -> tuple[str, set[str]]:
    """What such a process is told in namespaces of these kinds, and how many ancillary messages came with pieces."""
    argv = contained(os.path.dirname(path), [sys.executable, "-c", LISTENER, path], *kinds)
    with trio.fail_after(60):
        done = await trio.run_process(argv, capture_stdout=True, capture_stderr=True)
    return done.stdout.decode("latin-1"), set(done.stderr.decode().split())


OWN = Commanders(setting="takeover.from")


@asynccontextmanager
async def serving(
    path: str, handover_sockets: RecordingSource, commanders: Commanders = OWN
) -> AsyncIterator[None]:
    listening = trio.socket.socket(socket.AF_UNIX)
    await listening.bind(path)
    listening.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, [trio.SocketListener(listening)], handover_sockets, AcceptGate(), commanders)
        yield
        nursery.cancel_scope.cancel()
    listening.close()


@pytest.mark.failure("21")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
@pytest.mark.parametrize("kinds", [(PID,), (USER,), (PID, USER)], ids=["pid", "user", "both"])
async def test_a_container_is_told_nothing_and_handed_nothing(
    kinds: tuple[tuple[str, ...], ...], handover_sockets: RecordingSource, logs: list[MutableMapping[str, Any]]
) -> None:
    with tempfile.TemporaryDirectory(prefix="hl-") as folder:
        async with serving(path := f"{folder}/next.sock", handover_sockets):
            heard, rights = await told(path, *kinds)
    assert '"word":"no"' in heard
    assert "namespace, such as a container's; allowed: " in heard
    assert "takeover.from: any" in heard
    assert "tcp:127.0.0.1" not in heard, "not even a name"
    assert rights == {"0"}
    assert handover_sockets.told == []
    assert [entry["event"] for entry in logs] == ["proxy not handed over"]


@pytest.mark.failure("21")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
async def test_another_container_takes_over_where_the_configuration_says_so(handover_sockets: RecordingSource) -> None:
    with tempfile.TemporaryDirectory(prefix="hl-") as folder:
        async with serving(path := f"{folder}/next.sock", handover_sockets, Commanders(anywhere=True)):
            heard, _ = await told(path, PID)
            assert '"word":"yours"' in heard
            with trio.fail_after(20):
                while handover_sockets.told[-1:] != ["resume"]:  # that process ended without its last word
                    await trio.sleep(0.01)


@pytest.mark.failure("21")
async def test_descriptors_come_with_the_last_word_only(handover_sockets: RecordingSource) -> None:
    """Whoever only listens gets none, however long it waits."""
    old, new = ends()
    async with new, trio.open_nursery() as nursery:
        nursery.start_soon(hand_over, old, handover_sockets)
        await offered(new, handover_sockets)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.05) as waited:
            await trio.lowlevel.wait_readable(new.socket)
        assert waited.cancelled_caught, "there is nothing more to be had"
        await new.aclose()
    assert handover_sockets.told == ["resume"], "it never stopped accepting"


@pytest.mark.failure("21", "22")
async def test_the_lock_and_the_secret_of_the_state_dir_come_with_the_last_word_only(
    handover_sockets: RecordingSource, tmp_path: Path
) -> None:
    state = handover_sockets.state = StateLock(str(tmp_path))
    state.take()
    assert state.secret
    assert state.descriptor is not None
    old, new = ends()
    async with new, trio.open_nursery() as nursery:
        nursery.start_soon(hand_over, old, handover_sockets)
        for _ in range(3):
            message, descriptors = await receive(new)
            assert descriptors == []
            assert state.secret not in str(message)
        await send(new, HandoverStep(word="ready"))
        await expect(new, "yours")
        message, [lock] = await receive(new)
        assert message == HandoverState(secret=state.secret)
        assert os.path.sameopenfile(lock, state.descriptor)
        os.close(lock)
        nursery.cancel_scope.cancel()
    state.close()


async def test_serve(handover_sockets: RecordingSource) -> None:
    handover_sockets.why = "no"
    with tempfile.TemporaryDirectory(prefix="hl-") as folder:
        async with serving(path := f"{folder}/next.sock", handover_sockets):
            for _ in range(2):
                async with await trio.open_unix_socket(path) as stream:
                    with trio.fail_after(20):
                        assert await receive(stream) == (HandoverStep(word="no", why="no"), [])


async def test_whoever_comes_by_tcp_has_no_user(handover_sockets: RecordingSource) -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, [listener], handover_sockets, AcceptGate(), Commanders())
        async with await trio.testing.open_stream_to_socket_listener(listener) as stream:
            with trio.fail_after(20):
                message, _ = await receive(stream)
                assert isinstance(message, HandoverStep)
                assert " may not; allowed: " in message.why
        nursery.cancel_scope.cancel()
    listener.socket.close()
