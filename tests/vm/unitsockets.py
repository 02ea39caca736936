"""What systemd does with the upstreams' sockets between two processes: hostlane.service has it keep them."""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.tools.servers import Echo
from tests.vm import supervised
from tests.vm.inside import group
from tests.vm.supervised import SERVICE, UPSTREAM, becomes, calls, log, main_process, shows, systemctl


def run() -> None:
    with Echo("unix:/run/redis.sock"):
        between_two()
        preserved()
        killed_alone()


def kept() -> int:
    return int(shows("NFileDescriptorStore"))


def active(restarts: int) -> bool:
    return becomes(lambda: int(shows("NRestarts")) == restarts and shows("ActiveState") == "active")


def refused() -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(UPSTREAM) == errno.ECONNREFUSED


@contextmanager
def caller() -> Iterator[list[bool]]:
    """Calls, one after the other, and whether each was served: none is cut short by the end of the block."""
    found: list[bool] = []
    enough = threading.Event()

    def call() -> None:
        while not enough.is_set():
            found.append(calls())

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield found
    finally:
        enough.set()
        thread.join()


def between_two() -> None:
    with group("descriptor store") as checks:
        checks.check("installed", (said := supervised.install(SERVICE, "upgrade.md"))[0] == 0 and calls(), said)
        checks.check("systemd keeps the upstream's socket", becomes(lambda: kept() == 1), kept())
        with caller() as served:
            checks.check("systemctl restart", systemctl("restart", SERVICE) == 0)
        checks.check("every call meanwhile is served", len(served) > 0 and all(served), served)
        restarts = int(shows("NRestarts"))
        with caller() as served:
            os.kill(main_process(), signal.SIGKILL)
            checks.check("killed, it is started again", active(restarts + 1), log())
        checks.check("a call is cut at most, and the others are served", served.count(False) <= 1 < len(served), served)
        checks.check("systemctl stop", systemctl("stop", SERVICE) == 0)
        checks.check("leaves the socket's file", Path(UPSTREAM).is_socket())
        checks.check("and systemd drops the socket: refused", (kept(), refused()) == (0, True), kept())


def preserved() -> None:
    """Of a unit that another one refers to, as multi-user.target does to an enabled one; that is not loaded here."""
    with group("descriptor store, preserved") as checks:
        Path("/run/systemd/system/booted.target").write_text(f"[Unit]\nWants={SERVICE}\n")
        supervised.adds("preserve", "[Service]\nFileDescriptorStorePreserve=yes\n")
        checks.check("systemctl start of what wants it", systemctl("start", "booted.target") == 0 and calls(), log())
        store = [shows("FileDescriptorStorePreserve"), kept()]
        systemctl("stop", SERVICE)
        store += [shows("SubState"), kept()]
        checks.check(
            "systemctl stop keeps the socket", store == ["yes", 1, "dead-resources-pinned", 1], [*store, *log()]
        )
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(supervised.PATIENCE)
            sock.connect(UPSTREAM)
            sock.sendall(b"early")
            checks.check("systemctl start", systemctl("start", SERVICE) == 0)
            checks.check("who waited is served", sock.recv(100) == b"early")
        # `systemctl clean --what=fdstore` wants D-Bus, which the machine has not.
        systemctl("stop", SERVICE)


def killed_alone() -> None:
    """KillMode=process: who was taken over outlives a crash of its successor, and a stop of the unit."""
    with group("KillMode=process") as checks:
        supervised.adds("alone", "[Service]\nKillMode=process\n")
        systemctl("start", SERVICE)
        before, restarts = main_process(), int(shows("NRestarts"))
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(supervised.PATIENCE)

            def goes_on(what: bytes) -> bool:
                sock.sendall(what)
                return sock.recv(100) == what

            sock.connect(UPSTREAM)
            checks.check("a call is open", goes_on(b"before"))
            systemctl("kill", "--kill-whom=main", "--signal=SIGUSR2", SERVICE)
            checks.check("taken over", becomes(lambda: main_process() not in (0, before)) and goes_on(b"then"), log())
            os.kill(main_process(), signal.SIGKILL)
            checks.check("the successor is killed, and started again", active(restarts + 1), log())
            checks.check("the call goes on", goes_on(b"after a crash"))
            systemctl("stop", SERVICE)
            checks.check("after systemctl stop, too", shows("ActiveState") == "inactive" and goes_on(b"after a stop"))
        gone = Path(f"/proc/{before}")
        checks.check("the old process ends with its last call", becomes(lambda: not gone.exists()))
