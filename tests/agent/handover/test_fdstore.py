"""What systemd is told to keep. (What becomes of it: test_activation; with processes: tests/system/test_fdstore.)"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from control.base.reading.addresses import Address, TcpAddress, UnixAddress
from control.base.system.notify import VARIABLE
from control.base.system.unixsock import SocketIdentity
from proxy.agent.handover.fdstore import FdStore, StoredName, digest, name_of, read_name, room
from proxy.config.schema import UpstreamConfig
from proxy.outbound.sockets import InheritableListener, OpenListener
from tests.agent.handover.rig import short_folder
from tests.tools.sockets import free_port

pytestmark = pytest.mark.failure("24")


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as entries:
        yield entries


class Manager:
    """Hears what is said, each message as a line, `+` or `-` and the name."""

    def __init__(self, folder: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(str(folder / "notify"))
        self.sock.setblocking(False)

    def told(self) -> list[str]:
        found = []
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self.sock, 1000, 5)
            except BlockingIOError:
                return found
            what, name, *more = data.decode().splitlines()
            stores = what == "FDSTORE=1"
            assert len(descriptors) == stores
            assert more == (["FDPOLL=0"] if stores else [])
            assert stores or what == "FDSTOREREMOVE=1"
            found.append(("+" if stores else "-") + name.removeprefix("FDNAME="))
            for each in descriptors:
                os.close(each)


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as found:
        yield found


@pytest.fixture
def manager(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    found = Manager(folder)
    monkeypatch.setenv(VARIABLE, str(folder / "notify"))
    with found.sock:
        yield found


def opened(address: Address) -> OpenListener:
    return OpenListener.open("x", UpstreamConfig(listen=address))


def named(socket: OpenListener) -> str:
    return name_of(str(socket.upstream.listen), socket.inheritable().birth)


@given(st.text(min_size=1), st.none() | st.builds(SocketIdentity, *[st.integers(0, 2**64 - 1)] * 4))
def test_a_name_says_what_it_was_made_of(address: str, birth: SocketIdentity | None) -> None:
    try:
        name = name_of(address, birth)
    except UnicodeEncodeError:  # no path has such characters
        return
    assert read_name(name) == StoredName(digest(address), birth)
    assert len(name) <= 255
    assert name.isascii()
    assert ":" not in name


@pytest.mark.parametrize(
    "name", ["", "stored", "hostlane.socket", "hostlane-0123456789ab-1-2-3", "hostlane-0123456789ab\n"]
)
def test_names_that_are_not_ours(name: str) -> None:
    assert read_name(name) is None


def test_how_many_it_takes() -> None:
    said = {VARIABLE: "/run/systemd/notify"}
    assert room({**said, "FDSTORE": "12"}) == 12
    for environment in ({}, said, {"FDSTORE": "12"}, {**said, "FDSTORE": "-1"}, {**said, "FDSTORE": "many"}):
        assert room(environment) == 0
    assert room({**said, "FDSTORE": "9" * 30}) == 65536


async def test_it_has_those_that_there_are(folder: Path, manager: Manager) -> None:
    one, two = opened(UnixAddress(f"{folder}/one.sock")), opened(TcpAddress("127.0.0.1", free_port()))
    units = OpenListener.inherit(
        TcpAddress("127.0.0.1", 1), InheritableListener(socket.create_server(("127.0.0.1", 0)), kept=True)
    )
    sockets = [one, two, units]
    before = name_of("unix:/before", None)
    store = FdStore(10, [before, named(two)])
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run, lambda: sockets)
        assert manager.told() == [f"-{before}", f"+{named(one)}"], "two is there already, and units is systemd's own"
        assert one.kept
        assert two.kept
        store.look_again()
        await trio.testing.wait_all_tasks_blocked()
        assert manager.told() == []
        gone = named(two)
        sockets.remove(two)
        Path(f"{folder}/one.sock").unlink()
        lost = named(one)
        assert one.restore()
        store.look_again()
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(manager.told()) == sorted([f"-{gone}", f"-{lost}", f"+{named(one)}"])
        assert lost != named(one)
        nursery.cancel_scope.cancel()
    for each in (one, two, units):
        each.close()


async def test_no_more_than_it_takes(folder: Path, manager: Manager, logs: list[MutableMapping[str, Any]]) -> None:
    sockets = [opened(UnixAddress(f"{folder}/{number}.sock")) for number in range(3)]
    store = FdStore(2)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run, lambda: sockets)
        store.look_again()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert manager.told() == [f"+{named(each)}" for each in sockets[:2]]
    assert [each.kept for each in sockets] == [True, True, False]
    assert [(entry["sockets"], entry["at_most"]) for entry in logs] == [(3, 2)]
    for each in sockets:
        each.close()


async def test_those_that_it_has_already_come_first(folder: Path, manager: Manager) -> None:
    """And one that is bound again is not kept for that alone."""
    one, two = opened(UnixAddress(f"{folder}/one.sock")), opened(UnixAddress(f"{folder}/two.sock"))
    store = FdStore(0, [named(two)])
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run, lambda: [one, two])
        assert (one.kept, two.kept) == (False, True)
        assert manager.told() == []
        Path(f"{folder}/two.sock").unlink()
        assert two.restore()
        store.look_again()
        await trio.testing.wait_all_tasks_blocked()
        assert (one.kept, two.kept) == (True, False), "there is room for one"
        nursery.cancel_scope.cancel()
    one.close()
    two.close()


async def test_a_manager_that_does_not_listen_is_told_later(
    folder: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """The start does not wait for it; until then the socket is not taken for kept."""
    monkeypatch.setenv(VARIABLE, str(folder / "notify"))
    one = opened(UnixAddress(f"{folder}/one.sock"))
    store = FdStore(2)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run, lambda: [one])
        assert not one.kept
        late = Manager(folder)
        await trio.sleep(2)
        assert one.kept
        assert late.told() == [f"+{named(one)}"]
        late.sock.close()
        nursery.cancel_scope.cancel()
    one.close()


async def test_without_a_store_nothing_is_said(folder: Path, manager: Manager) -> None:
    one = opened(UnixAddress(f"{folder}/one.sock"))
    async with trio.open_nursery() as nursery:
        await nursery.start(FdStore(0).run, lambda: [one])
    assert manager.told() == []
    assert not one.kept
    one.close()
