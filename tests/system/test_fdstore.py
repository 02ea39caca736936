"""Sockets that a service manager keeps for the next process, with real processes: callers wait, and none is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import randint
from typing import Any

import pytest

from proxy.demo.mesh import HOSTLANE
from tests.system.world import ask, hostlane
from tests.tools.process import Process
from tests.tools.servers import Echo
from tests.tools.servicemanager import ServiceManager
from tests.tools.sockets import connect, eventually, exchange, free_port

pytestmark = pytest.mark.failure("24")


@pytest.fixture
def folder() -> Iterator[Path]:
    found = Path(tempfile.mkdtemp(prefix="hl-"))
    yield found
    shutil.rmtree(found)


class Unit:
    """A proxy with a service of its own host, as a unit of a service manager.

    Attributes:
        places: where callers connect: through a Unix socket and through TCP.
        starts: how often it was started.
    """

    def __init__(self, folder: Path, manager: ServiceManager, stop_timeout: str) -> None:
        self.places = [f"unix:{folder}/calls.sock", f"tcp:127.0.0.1:{free_port()}"]
        self.unix = folder / "calls.sock"
        self.file = folder / "f.yaml"
        self.manager, self.folder = manager, folder
        self.upstreams: dict[str, Any] = {
            kind: {"listen": place} for kind, place in zip(("unix", "tcp"), self.places, strict=True)
        }
        self._links = f"127.{randint(1, 254)}.{randint(0, 255)}.{randint(1, 254)}:7600"
        self._stop_timeout = stop_timeout
        self.write()
        self.process = manager.service([*HOSTLANE, "proxy", "--config", str(self.file)])
        self.starts = 0

    def write(self, **sections: Any) -> None:
        """Write the configuration, with what `upstreams` says by now."""
        config = {
            "host": "host-a",
            "run_dir": f"{self.folder}/run",
            "links": {"listen": self._links, "security": "none"},
            "upstreams": self.upstreams,
            "services": {kind: {"deliver": f"unix:{self.folder}/echo.sock"} for kind in ("unix", "tcp", "more")},
            "log": {"format": "json"},
            "limits": {"stop_timeout": self._stop_timeout},
        }
        self.file.write_text(json.dumps({**config, **sections}))

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        self.process.start()
        self.starts += 1
        self.process.wait_for("proxy ready")
        self.manager.ready(self.starts)

    def call(self) -> None:
        """A call through each socket."""
        for place in self.places:
            with connect(place) as client:
                exchange(client, b"hello")


@contextmanager
def unit(folder: Path, room: int = 64, stop_timeout: str = "2s") -> Iterator[Unit]:
    with Echo(f"unix:{folder}/echo.sock"), ServiceManager(folder, room) as manager:
        found = Unit(folder, manager, stop_timeout)
        found.start()
        try:
            yield found
        finally:
            if found.process.running:
                found.process.kill()


def lock_of(path: Path) -> Path:
    return path.parent / f".{path.name}.lock"


def test_callers_wait_while_there_is_no_process_after_a_crash(folder: Path) -> None:
    with unit(folder) as proxy:
        proxy.call()
        inode = proxy.unix.stat().st_ino
        assert len(proxy.manager.stored) == 2
        proxy.process.kill()
        waiting = [connect(place) for place in proxy.places for _ in range(20)]
        for client in waiting:
            client.sendall(b"in between")
        proxy.start()
        for client in waiting:
            assert client.recv(100) == b"in between"
            client.close()
        proxy.call()
        assert proxy.unix.stat().st_ino == inode
        assert len(proxy.manager.stored) == 2
        proxy.process.kill()
        proxy.start()
        proxy.call()


def test_stops_and_starts_under_callers_that_come_all_the_time(folder: Path) -> None:
    """None is refused, and none is lost."""
    done, failed, served = threading.Event(), list[Exception](), [0, 0]

    def come(number: int, place: str) -> None:
        while not done.is_set():
            try:
                with connect(place) as client:
                    exchange(client, b"x" * 100)
                served[number] += 1
            except (OSError, AssertionError) as error:
                failed.append(error)

    with unit(folder, stop_timeout="5s") as proxy:
        threads = [threading.Thread(target=come, args=each) for each in enumerate(proxy.places) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(3):
                before = list(served)
                eventually(lambda before=before: all(a > b + 20 for a, b in zip(served, before, strict=True)), "calls")  # type: ignore[misc]
                if proxy.starts < 3:
                    assert proxy.process.stop() == 0
                    proxy.start()
        finally:
            done.set()
            for thread in threads:
                thread.join()
    assert failed == []


def test_crashes_refuse_nobody_who_comes_all_the_time(folder: Path) -> None:
    """Calls that the process had accepted are lost with it, and no others."""
    done, refused, lost = threading.Event(), list[Exception](), list[Exception]()

    def come(place: str) -> None:
        while not done.is_set():
            try:
                client = connect(place)
            except OSError as error:
                refused.append(error)
                continue
            with client:
                try:
                    exchange(client, b"x" * 100)
                except (OSError, AssertionError) as error:
                    lost.append(error)

    with unit(folder) as proxy:
        threads = [threading.Thread(target=come, args=[place]) for place in proxy.places for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(2):
                eventually(lambda: ask(folder / "run" / "admin.sock", "status")["streams_opened"] > 100, "calls")
                proxy.process.kill()
                proxy.start()
        finally:
            done.set()
            for thread in threads:
                thread.join()
    assert refused == []
    assert len(lost) <= 2 * len(threads)


def test_what_lies_there_after_a_stop(folder: Path) -> None:
    with unit(folder) as proxy:
        proxy.process.stop()
        assert proxy.unix.is_socket(), "callers wait there"
        assert not list((folder / "run").glob("*.sock"))
        with connect(proxy.places[0]) as late:
            late.sendall(b"late")
            proxy.start()
            assert late.recv(10) == b"late"


def test_without_a_store_files_go_with_the_process(folder: Path) -> None:
    with unit(folder, room=0) as proxy:
        assert proxy.manager.stored == {}
        proxy.process.stop()
        assert not proxy.unix.exists()


def test_no_more_than_it_takes(folder: Path) -> None:
    with unit(folder, room=1) as proxy:
        assert len(proxy.manager.stored) == 1
        assert proxy.process.wait_for(
            "systemd stores no more sockets: callers of the others do not wait for the next process"
        )
        proxy.process.stop()
        proxy.start()
        proxy.call()


def test_a_file_that_is_gone_and_one_that_is_another_ones(folder: Path) -> None:
    """What was stored is of no use, is dropped, and a new socket is opened and stored."""
    with unit(folder) as proxy:
        for number in range(2):
            before = set(proxy.manager.stored)
            proxy.process.kill()
            proxy.unix.unlink()
            if number:
                with socket.socket(socket.AF_UNIX) as other:
                    other.bind(str(proxy.unix))
            proxy.start()
            proxy.call()
            assert len(proxy.manager.stored) == 2
            assert len(before & proxy.manager.stored.keys()) == 1


def test_a_socket_that_is_bound_again_is_stored_in_its_place(folder: Path) -> None:
    with unit(folder) as proxy:
        before = set(proxy.manager.stored)
        proxy.unix.unlink()
        proxy.process.wait_for("somebody had removed a socket's file: it is bound again")
        eventually(lambda: len(before & proxy.manager.stored.keys()) == 1 and len(proxy.manager.stored) == 2, "stored")
        proxy.process.kill()
        proxy.start()
        proxy.call()


def test_another_configuration_and_other_rights(folder: Path) -> None:
    """While it runs, and between two starts."""
    with unit(folder) as proxy:
        more = folder / "more.sock"
        proxy.upstreams["more"] = {"listen": f"unix:{more}"}
        proxy.write()
        assert hostlane("reload", "--config", str(proxy.file)).returncode == 0
        eventually(lambda: len(proxy.manager.stored) == 3, "stored")
        del proxy.upstreams["more"]
        proxy.write()
        assert hostlane("reload", "--config", str(proxy.file)).returncode == 0
        eventually(lambda: len(proxy.manager.stored) == 2, "dropped")
        assert not more.exists()
        assert not lock_of(more).exists()
        proxy.upstreams["unix"]["mode"] = "0600"
        tcp = proxy.upstreams.pop("tcp")
        proxy.write()
        proxy.process.kill()
        proxy.start()
        eventually(lambda: len(proxy.manager.stored) == 1, "dropped")
        assert proxy.unix.stat().st_mode & 0o777 == 0o600
        with pytest.raises(ConnectionRefusedError):
            connect(tcp["listen"])


def test_takeovers_keep_what_is_stored(folder: Path) -> None:
    with unit(folder) as proxy:
        stored = set(proxy.manager.stored)
        os.kill(proxy.process.pid, signal.SIGUSR2)
        new = int(proxy.process.wait_for("successor started")["pid"])
        proxy.manager.ready(2)
        proxy.starts += 1
        proxy.process.wait_for("proxy handed over", pid=new)
        eventually(lambda: not proxy.process.running, "it has let go")  # its successor writes to the same pipe
        proxy.call()
        assert ask(folder / "run" / "admin.sock", "status")["pid"] == new
        assert set(proxy.manager.stored) == stored
        os.kill(new, signal.SIGKILL)
        proxy.process.wait()  # for the end of what both have logged, too
        with connect(proxy.places[0]) as late:
            late.sendall(b"late")
            proxy.start()
            assert late.recv(10) == b"late"
        proxy.call()


def test_nobody_else_takes_the_place_of_what_is_stored(folder: Path) -> None:
    with unit(folder) as proxy:
        proxy.process.kill()
        other = Process([*HOSTLANE, "proxy", "--config", str(proxy.file)])
        other.start()
        assert other.wait() == 2
        assert "already listens there" in other.text()
        proxy.start()
        proxy.call()


def test_a_start_that_fails_leaves_it_as_it_was(folder: Path) -> None:
    with unit(folder) as proxy, suppress(FileNotFoundError):
        proxy.process.kill()
        port = int(proxy._links.rpartition(":")[2])
        with socket.create_server((proxy._links.rpartition(":")[0], port)):
            proxy.process.start()
            assert proxy.process.wait() == 2
        with connect(proxy.places[0]) as late:
            late.sendall(b"late")
            proxy.start()
            assert late.recv(10) == b"late"
