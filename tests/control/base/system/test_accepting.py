from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Iterator

import pytest
import structlog
import trio
import trio.testing

from control.base.system.accepting import OF_CLIENT, accept_all
from tests.tools.sockets import PATIENCE


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as made:
        made.setblocking(False)
        yield made


async def test_all_who_wait_are_accepted_in_one_round(listening: socket.socket, nursery: trio.Nursery) -> None:
    clients = [socket.create_connection(listening.getsockname()) for _ in range(20)]
    came: list[trio.SocketStream] = []
    everybody = trio.Event()

    async def handler(stream: trio.SocketStream) -> None:
        came.append(stream)
        # All of them are on their way before the first one runs.
        if len(trio.lowlevel.current_task().parent_nursery.child_tasks) >= len(clients):  # type: ignore[union-attr]
            everybody.set()
        await everybody.wait()
        await stream.send_all(b"hello")
        await stream.aclose()

    nursery.start_soon(accept_all, listening, "here", handler, nursery)
    with trio.fail_after(PATIENCE):
        await everybody.wait()
        for client in clients:
            client.settimeout(PATIENCE)
            assert await trio.to_thread.run_sync(client.recv, 5) == b"hello"
            client.close()
    assert len(came) == len(clients)
    nursery.cancel_scope.cancel()


class Refusing:
    """A listening socket whose accept fails as often as told."""

    def __init__(self, real: socket.socket, errors: list[int]) -> None:
        self._real, self._errors = real, errors
        self.fileno, self.getsockname = real.fileno, real.getsockname

    def accept(self) -> tuple[socket.socket, object]:
        if self._errors:
            raise OSError(self._errors.pop(0), "as told")
        return self._real.accept()


@pytest.mark.failure(1, "30")
@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOBUFS, errno.EACCES, errno.EPERM, errno.ENOSYS])
async def test_a_machine_that_cannot_accept_says_so_once(
    listening: socket.socket, nursery: trio.Nursery, code: int
) -> None:
    errors = [code, code, errno.ECONNABORTED, code]
    came = trio.Event()

    async def handler(stream: trio.SocketStream) -> None:
        await stream.aclose()
        came.set()

    with structlog.testing.capture_logs() as logs, socket.create_connection(listening.getsockname()):
        nursery.start_soon(accept_all, Refusing(listening, errors), "here", handler, nursery)
        with trio.fail_after(PATIENCE):
            await came.wait()
    assert not errors
    assert [(entry["event"], entry["listen"], entry["error"], entry["kind"]) for entry in logs] == [
        ("cannot accept a connection", "here", os.strerror(code), ("here", code))
    ]
    nursery.cancel_scope.cancel()


@pytest.mark.failure("30")
@pytest.mark.parametrize("code", [errno.EACCES, errno.ENFILE])
async def test_what_fails_is_known_until_it_works(listening: socket.socket, nursery: trio.Nursery, code: int) -> None:
    """Also if nobody waits any more."""
    errors, failing = [code] * 1000, dict[int, str]()
    real = socket.socket(fileno=os.dup(listening.fileno()))
    with real, socket.create_connection(listening.getsockname()):
        refusing = Refusing(listening, errors)
        nursery.start_soon(accept_all, refusing, "here", trio.aclose_forcefully, nursery, failing)
        with trio.fail_after(PATIENCE):
            while not failing:
                await trio.sleep(0.01)
            assert failing == {listening.fileno(): os.strerror(code)}
            real.accept()[0].close()
            errors.clear()
            while failing:
                await trio.sleep(0.01)
        errors.append(code)
        with socket.create_connection(listening.getsockname()), trio.fail_after(PATIENCE):
            while not failing:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
    assert not failing, "whoever does not accept does not fail"


async def test_a_closed_socket_is_an_error(listening: socket.socket) -> None:
    with socket.create_connection(listening.getsockname()):
        with pytest.RaisesGroup(OSError) if hasattr(pytest, "RaisesGroup") else pytest.raises(BaseExceptionGroup):
            async with trio.open_nursery() as nursery:
                with trio.move_on_after(PATIENCE):
                    await accept_all(
                        Refusing(listening, [errno.EINVAL]),  # type: ignore[arg-type]
                        "here",
                        trio.aclose_forcefully,
                        nursery,
                    )


def test_a_process_without_descriptors() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as client:
        listening.bind("")
        listening.listen()
        client.connect(listening.getsockname())
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
        try:
            with pytest.raises(OSError) as caught:
                listening.accept()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert caught.value.errno not in OF_CLIENT
        listening.accept()[0].close()  # it has waited
