"""Who may command, asked by real processes: of other users, groups and namespaces, and by some that have ended."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from control.base.system import commanders
from control.base.system.commanders import Commanders
from tests.tools.namespaces import PID, USER, contained
from tests.tools.sockets import PATIENCE

pytestmark = [
    pytest.mark.failure("21"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else, and mount"),
]

CALLER = """
import os, socket, sys
path, uid, gid, *groups = sys.argv[1:]
if uid != "0":  # a user namespace permits nothing of it
    os.setgroups([int(group) for group in groups])
    os.setgid(int(gid))
    os.setuid(int(uid))
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(path)
    sock.recv(1)
"""
ROOT = ("0", "0")
JUDGE = """
import socket, sys
from control.base.system.commanders import Commanders
with socket.socket(fileno=int(sys.argv[1])) as sock:
    print(Commanders().refusal(sock))
"""


class Listening:
    """A listening socket that everybody may connect to."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.path = directory, str(directory / "s")
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(self.path)
        os.chmod(self.path, 0o666)
        self.socket.listen()
        self.socket.settimeout(PATIENCE)

    @contextmanager
    def asked(self, who: Sequence[str] = ROOT, *kinds: tuple[str, ...]) -> Iterator[socket.socket]:
        """Accept a process of this user, group and supplementary groups, in namespaces of its own of these kinds."""
        argv = [sys.executable, "-c", CALLER, self.path, *who]
        with subprocess.Popen(contained(self.directory, argv, *kinds)):
            accepted, _ = self.socket.accept()
            with accepted:
                yield accepted


@pytest.fixture
def listening(directory: Path) -> Iterator[Listening]:
    found = Listening(directory)
    with found.socket:
        yield found


def test_root_of_these_namespaces_may(listening: Listening) -> None:
    """Also with a mount namespace of its own: a service of systemd has one."""
    with listening.asked() as client:
        assert Commanders().refusal(client) is None


def test_this_process_may() -> None:
    near, far = socket.socketpair()
    with near, far:
        assert Commanders().refusal(near) is None


@pytest.mark.parametrize("kinds", [(PID,), (USER,), (PID, USER)], ids=["pid", "user", "both"])
def test_uid_0_of_a_container_may_not(listening: Listening, kinds: tuple[tuple[str, ...], ...]) -> None:
    with listening.asked(ROOT, *kinds) as client:
        refusal = Commanders().refusal(client)
        assert refusal is not None
        assert f"in another {'pid' if PID in kinds else 'user'} namespace, such as a container's; allowed: " in refusal
        assert refusal.endswith("or any with admin.from: any")
        assert "\n" not in refusal
        assert Commanders(anywhere=True).refusal(client) is None


def test_seen_from_a_container_the_host_is_elsewhere(listening: Listening) -> None:
    """Its processes have no pid there."""
    with listening.asked() as client:
        client.set_inheritable(True)
        argv = contained(listening.directory, [sys.executable, "-c", JUDGE, str(client.fileno())], PID)
        done = subprocess.run(
            argv, pass_fds=[client.fileno()], capture_output=True, text=True, timeout=60, check=True
        )
    assert done.stdout.startswith("it comes from another pid namespace, such as a container's; allowed: ")


def test_a_proc_of_another_pid_namespace_tells_nothing(listening: Listening) -> None:
    """Our numbers mean other processes there."""
    argv = [sys.executable, "-c", JUDGE.replace("int(sys.argv[1])", "socket.socketpair()[0].detach()")]
    done = subprocess.run(
        ["unshare", "--pid", "--fork", *argv], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("it cannot be determined which namespace it comes from, as /proc here is of another")


@pytest.mark.parametrize("who", [("65532", "65532"), ("65534", "65534")])
def test_another_user_may_not(listening: Listening, who: tuple[str, str]) -> None:
    with listening.asked(who) as client:
        for each in (Commanders(), Commanders(anywhere=True), Commanders(group=65531)):
            refusal = each.refusal(client)
            assert refusal is not None
            assert refusal.startswith(f"user {who[0]} may not; allowed: root")


@pytest.mark.parametrize("who", [("65532", "65531"), ("65532", "65532", "65530", "65531")])
def test_a_member_of_the_group_may_but_not_from_a_container(listening: Listening, who: tuple[str, ...]) -> None:
    group = Commanders(group=65531)
    with listening.asked(who) as client:
        assert group.refusal(client) is None
        assert Commanders(group=65533).refusal(client) == "user 65532 may not; allowed: root and group 65533"
    with listening.asked(who, PID) as client:
        assert "in another pid namespace" in (group.refusal(client) or "")
        assert Commanders(group=65531, anywhere=True).refusal(client) is None


def test_a_process_that_has_ended_cannot_be_determined(listening: Listening) -> None:
    with subprocess.Popen([sys.executable, "-c", CALLER, listening.path, *ROOT]) as caller:
        accepted, _ = listening.socket.accept()
        with accepted:
            caller.kill()
            caller.wait(PATIENCE)
            refusal = Commanders().refusal(accepted)
            assert refusal is not None
            assert refusal.startswith(f"it cannot be determined which namespace process {caller.pid} is in")
            assert Commanders(anywhere=True).refusal(accepted) is None


def test_the_next_process_of_the_same_number_is_not_taken_for_it(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files in /proc would be those of somebody who may."""
    with subprocess.Popen([sys.executable, "-c", CALLER, listening.path, *ROOT]) as caller:
        accepted, _ = listening.socket.accept()
        with accepted:
            files = (f"{caller.pid}/{name}" for name in ("status", "uid_map"))
            seen = {name: Path(f"/proc/{name}").read_text() for name in files}
            caller.kill()
            caller.wait(PATIENCE)
            read = commanders._text
            monkeypatch.setattr(commanders, "_text", lambda name: seen.get(name) or read(name))
            assert (Commanders().refusal(accepted) or "").partition("; ")[0].endswith("as it has ended")


def test_an_unmapped_user_is_not_this_processs_own(listening: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that runs as nobody sees its own number in every user that is not mapped."""
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    with listening.asked(("65534", "65534")) as client:
        assert Commanders(anywhere=True).refusal(client) is None
    with listening.asked(("65534", "65534"), PID) as client:
        refusal = Commanders(anywhere=True).refusal(client)
        assert refusal == "user 65534 stands for every user that is not mapped here; allowed: root and user 65534"


def test_whoever_comes_by_tcp_has_no_user() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()),
        server.accept()[0] as client,
    ):
        assert (Commanders().refusal(client) or "").endswith("may not; allowed: root")
