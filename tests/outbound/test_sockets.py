"""The listening sockets of upstreams: prepared, taken back, kept, closed."""

from __future__ import annotations

import errno
import os
import shlex
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from control.base.reading.addresses import Address, TcpAddress, UnixAddress, ip_port, overlap
from control.base.system.peercred import credentials_of
from proxy.config.schema import UpstreamConfig
from proxy.errors import StartError
from proxy.outbound.sockets import (
    MOST_LOST,
    SO_DETACH_FILTER,
    SO_PASSRIGHTS,
    UNKNOWN,
    InheritableListener,
    ListenerSet,
    OpenListener,
    bind_tcp,
    let_nobody_in,
    prepare_passed,
)
from proxy.pump.budget import MemoryBudget
from proxy.pump.deadlines import Deadlines
from proxy.pump.loop import Pump
from proxy.pump.options import LocalSocket
from proxy.pump.turn import LaneReader
from tests.tools.sockets import PATIENCE, open_fds


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hl-") as found:
        yield Path(found)


def unix(folder: Path, name: str, mode: int = 0o666, owner: int | None = None) -> UpstreamConfig:
    return UpstreamConfig(listen=UnixAddress(f"{folder}/{name}.sock"), mode=mode, owner=owner)


def change(sockets: ListenerSet, **upstreams: UpstreamConfig) -> None:
    with ExitStack() as undo:
        wanted = sockets.prepare(upstreams, undo)
        undo.pop_all()
    sockets.replace(wanted)


def mode(folder: Path, name: str) -> int:
    return stat.S_IMODE((folder / f"{name}.sock").stat().st_mode)


def test_opened_kept_and_closed(folder: Path) -> None:
    sockets = ListenerSet()
    change(sockets, a=unix(folder, "a"), b=unix(folder, "b"))
    kept = sockets.opened[UnixAddress(f"{folder}/b.sock")]
    change(sockets, b=unix(folder, "b"), c=unix(folder, "c"))
    assert sorted(path.name for path in folder.glob("*.sock")) == ["b.sock", "c.sock"]
    assert sockets.opened[UnixAddress(f"{folder}/b.sock")] is kept
    change(sockets)
    assert list(folder.iterdir()) == []


def test_what_was_prepared_and_is_not_wanted_is_taken_back(folder: Path) -> None:
    sockets = ListenerSet()
    change(sockets, a=unix(folder, "a"))
    with ExitStack() as undo:
        sockets.prepare({"a": unix(folder, "a", 0o600), "b": unix(folder, "b")}, undo)
        assert (mode(folder, "a"), mode(folder, "b")) == (0o600, 0o666)
    assert mode(folder, "a") == 0o666
    assert not (folder / "b.sock").exists()
    change(sockets)


def test_a_failure_takes_back_what_went_before_it(folder: Path) -> None:
    sockets = ListenerSet()
    change(sockets, a=unix(folder, "a"))
    (folder / "b.sock").write_text("somebody's")
    with pytest.raises(StartError, match="regular file"), ExitStack() as undo:
        sockets.prepare({"a": unix(folder, "a", 0o600), "c": unix(folder, "c"), "b": unix(folder, "b")}, undo)
    assert mode(folder, "a") == 0o666
    assert not (folder / "c.sock").exists()
    change(sockets)


def test_a_socket_whose_file_was_replaced_cannot_get_other_rights(folder: Path) -> None:
    sockets = ListenerSet()
    change(sockets, a=unix(folder, "a"))
    (folder / "a.sock").unlink()
    (folder / "a.sock").write_text("somebody's")
    (folder / "a.sock").chmod(theirs := 0o644)
    with pytest.raises(StartError, match=r"^cannot change unix:.*/a\.sock: another file has taken the path"):
        change(sockets, a=unix(folder, "a", 0o600))
    assert mode(folder, "a") == theirs
    change(sockets)


def test_rights_that_cannot_be_given_leave_those_that_there_were(folder: Path) -> None:
    sockets = ListenerSet()
    change(sockets, a=unix(folder, "a"))
    with pytest.raises(StartError, match="there is no user 'nobody-of-that-name' here"):
        change(
            sockets, a=UpstreamConfig(listen=UnixAddress(f"{folder}/a.sock"), mode=0o600, owner="nobody-of-that-name")
        )
    assert mode(folder, "a") == 0o666
    change(sockets)


def test_another_caller_or_service_touches_no_file(folder: Path) -> None:
    sockets = ListenerSet()
    change(sockets, a=unix(folder, "a"))
    (folder / "a.sock").unlink()
    change(sockets, b=UpstreamConfig(listen=UnixAddress(f"{folder}/a.sock"), caller="shop"))
    change(sockets)


def test_tcp() -> None:
    with bind_tcp("upstreams.web", TcpAddress("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            pass
        with pytest.raises(StartError, match=rf"^upstreams\.web\.listen: tcp:127\.0\.0\.1:{port}: the port is in use$"):
            bind_tcp("upstreams.web", TcpAddress("127.0.0.1", port))


@pytest.mark.failure("30")
def test_a_file_that_is_lost_again_and_again(folder: Path) -> None:
    """Each time there is a new socket at the path; only some of the old ones are kept."""
    sockets, path = ListenerSet(), folder / "a.sock"
    change(sockets, a=unix(folder, "a"))
    [opened] = sockets.opened.values()
    assert not opened.restore()
    before = len(open_fds())
    for _ in range(3 * MOST_LOST):
        path.unlink()
        assert not opened.in_place
        assert opened.restore()
        assert opened.in_place
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        assert len(open_fds()) <= before + 3 * MOST_LOST
    change(sockets)
    assert list(folder.iterdir()) == []


@pytest.mark.failure("30")
def test_while_another_process_may_take_the_socket_nothing_is_bound_again(folder: Path) -> None:
    sockets, path = ListenerSet(), folder / "a.sock"
    change(sockets, a=unix(folder, "a"))
    [opened] = sockets.opened.values()
    opened.hold(True)
    path.unlink()
    assert not opened.restore()
    opened.hold(False)
    assert opened.restore()
    change(sockets)


ONLY_V6 = """
import socket
from control.base.reading.addresses import TcpAddress
from proxy.outbound.sockets import bind_tcp

assert open("/proc/sys/net/ipv6/bindv6only").read() == "1\\n"
with bind_tcp("web", TcpAddress("::", 0)) as sock:
    for host in ("127.0.0.1", "::1"):
        socket.create_connection((host, sock.getsockname()[1])).close()
"""


@pytest.mark.netns
@pytest.mark.failure("34")
def test_every_address_is_every_address_whatever_the_kernel_is_told() -> None:
    prepare = "ip link set lo up && echo 1 > /proc/sys/net/ipv6/bindv6only && exec"
    script = f"{prepare} {shlex.quote(sys.executable)} -c {shlex.quote(ONLY_V6)}"
    subprocess.run(["unshare", "--net", "sh", "-c", script], check=True, timeout=60)


def inheritables(sockets: ListenerSet) -> dict[Address, InheritableListener]:
    """What another process would get."""
    given = {address: opened.inheritable() for address, opened in sockets.opened.items()}
    return {
        address: each._replace(sock=each.sock.dup(), lock=None if each.lock is None else os.dup(each.lock))
        for address, each in given.items()
    }


def test_a_socket_of_another_process_changes_hands(folder: Path) -> None:
    old, new = ListenerSet(), ListenerSet()
    web = UpstreamConfig(listen=TcpAddress("127.0.0.1", 0))
    change(old, a=unix(folder, "a"), web=web)
    new.inherit(inheritables(old))
    change(new, a=unix(folder, "a", 0o600), web=web)
    assert mode(folder, "a") == 0o666, "the old process may yet go on with it"
    old.leave()
    assert (folder / "a.sock").is_socket()
    new.own()
    assert mode(folder, "a") == 0o600
    change(new)
    assert list(folder.iterdir()) == []


def test_one_that_is_not_ours_yet_leaves_the_file(folder: Path) -> None:
    old, new = ListenerSet(), ListenerSet()
    change(old, a=unix(folder, "a"))
    new.inherit(inheritables(old))
    with ExitStack() as undo:
        new.prepare({"a": unix(folder, "a", 0o600)}, undo)
    new.discard()
    assert (folder / "a.sock").is_socket()
    with pytest.raises(StartError):
        change(ListenerSet(), a=unix(folder, "a"))
    change(old)


def test_what_is_taken_back_can_be_had_again(folder: Path) -> None:
    """An upstream of the map may be tried more than once, since another one cannot be had."""
    old, new = ListenerSet(), ListenerSet()
    change(old, a=unix(folder, "a"))
    new.inherit(inheritables(old))
    old.leave()
    new.own()
    (folder / "b.sock").write_text("somebody's")
    with pytest.raises(StartError):
        change(new, a=unix(folder, "a"), b=unix(folder, "b"))
    change(new, a=unix(folder, "a"))
    assert (list(new.opened), new.spare) == ([UnixAddress(f"{folder}/a.sock")], {})
    change(new)


def test_what_nobody_wants_waits_and_goes(folder: Path) -> None:
    old, new = ListenerSet(), ListenerSet()
    change(old, a=unix(folder, "a"), b=unix(folder, "b"))
    new.inherit(inheritables(old))
    change(new, a=unix(folder, "a"))
    old.leave()
    new.own()
    assert (folder / "b.sock").is_socket()
    assert len(new.all) == 2
    change(new, a=unix(folder, "a"))
    assert (folder / "b.sock").is_socket()
    new.discard()
    assert [path.name for path in folder.glob("*.sock")] == ["a.sock"]
    change(new)


def test_rights_that_cannot_be_changed_any_more_are_a_line(folder: Path) -> None:
    old, new = ListenerSet(), ListenerSet()
    change(old, a=unix(folder, "a"))
    new.inherit(inheritables(old))
    change(new, a=unix(folder, "a", 0o600))
    old.leave()
    (folder / "a.sock").unlink()
    with capture_logs() as logs:
        new.own()
    assert [(each["event"], each["log_level"]) for each in logs] == [("a socket keeps the rights that it had", "error")]
    change(new)


def test_connections_through_a_socket_of_systemd_end_like_all_others() -> None:
    """As a reset, unless something else is said: the options of a listening socket are those of its connections."""
    with socket.create_server(("127.0.0.1", 0), backlog=1) as sock:
        prepare_passed(sock)
        OpenListener.inherit(TcpAddress("127.0.0.1", 0), InheritableListener(sock))
        sock.setblocking(True)
        with socket.create_connection(sock.getsockname()) as client:
            accepted, _ = sock.accept()
            accepted.close()
            with pytest.raises(ConnectionResetError):
                client.recv(1)


def test_a_socket_of_systemd_keeps_its_file(folder: Path) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(f"{folder}/a.sock")
    sock.listen()
    prepare_passed(sock)
    sockets = ListenerSet()
    sockets.inherit({UnixAddress(f"{folder}/a.sock"): InheritableListener(sock)})
    change(sockets, a=unix(folder, "a", 0o600))
    assert not sock.getblocking()
    [opened] = sockets.opened.values()
    assert opened.inheritable().lock is None
    sockets.own()
    change(sockets, a=unix(folder, "a", 0o640))
    change(sockets)
    assert (sock.fileno(), [path.name for path in folder.iterdir()]) == (-1, ["a.sock"])


@pytest.mark.failure("24")
@pytest.mark.parametrize("kept", [True, False])
async def test_who_waits_at_a_socket_that_systemd_keeps_waits_for_the_next_process(folder: Path, kept: bool) -> None:
    """Unless its upstream is removed: nobody else would serve it then."""
    path, found = f"{folder}/a.sock", list[LocalSocket]()
    with socket.socket(socket.AF_UNIX) as sock, socket.socket(socket.AF_UNIX) as caller:
        sock.bind(path)
        sock.listen()
        prepare_passed(sock)
        pump = Pump(MemoryBudget(1 << 20, 1 << 20), LaneReader())
        sockets = ListenerSet()
        sockets.inherit({UnixAddress(path): InheritableListener(sock.dup(), kept=kept)})
        change(sockets, a=unix(folder, "a"))
        [opened] = sockets.opened.values()
        opened.listen(pump, Deadlines(pump.settle), found.append, pump.openings.of("test"))
        caller.connect(path)
        caller.send(b"x")
        sockets.finish({}, stops=True)
        assert len(found) == (not kept)
        if kept:
            sockets.finish({})
            assert len(found) == 1
        sockets.replace({})
        pump.shut_down()
        assert found[0].recv(1) == b"x"
        found[0].close()
        with socket.socket(socket.AF_UNIX) as late:
            late.connect(path)  # what others hold still takes callers


@pytest.mark.failure("24")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("dropped", [True, False])
def test_a_tcp_socket_whose_process_died_in_its_last_turn_lets_callers_in_again(host: str, dropped: bool) -> None:
    """The process that has it from then on owns it."""
    old, new = ListenerSet(), ListenerSet()
    listener = bind_tcp("a", TcpAddress(host, 0))
    port, family = listener.getsockname()[1], listener.family
    web = UpstreamConfig(listen=TcpAddress(host, port))
    old.inherit({web.listen: InheritableListener(listener)})
    change(old, a=web)
    new.inherit(inheritables(old))
    change(new, a=web)
    if dropped:
        let_nobody_in(listener)
    change(old)
    new.own()
    with socket.socket(family) as caller:
        caller.settimeout(PATIENCE)
        caller.connect((host, port))
    change(new)


@pytest.mark.failure("24")
def test_a_filter_on_a_tcp_socket_that_systemd_keeps_is_somebody_elses() -> None:
    """Nobody here sets one on such a socket, so nobody here takes one away."""
    sockets = ListenerSet()
    listener = bind_tcp("a", TcpAddress("127.0.0.1", 0))
    web = UpstreamConfig(listen=TcpAddress(*listener.getsockname()))
    sockets.inherit({web.listen: InheritableListener(listener, kept=True)})
    change(sockets, a=web)
    let_nobody_in(listener)
    sockets.own()
    listener.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)  # raises ENOENT if there is none any more
    change(sockets)


LISTENS = """
import os, socket, sys
socket.socket(fileno=int(sys.argv[1])).listen()
print(os.getpid(), flush=True)
sys.stdin.read()
"""


@pytest.mark.failure("24")
def test_a_unix_socket_that_systemd_keeps_names_the_process_that_has_it_now(folder: Path) -> None:
    """To callers who ask (SO_PEERCRED): `hostlane check` and a second proxy say which process that is."""
    path, sockets = f"{folder}/a.sock", ListenerSet()
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    command, descriptor = [sys.executable, "-c", LISTENS, str(sock.fileno())], sock.fileno()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, pass_fds=[descriptor], **pipes) as before:  # type: ignore[call-overload]
        other = int(before.stdout.readline())
        sockets.inherit({UnixAddress(path): InheritableListener(sock, kept=True)})
        change(sockets, a=unix(folder, "a"))
        assert listening_process(path) == other
        sockets.own()
        assert listening_process(path) == os.getpid()
        before.stdin.close()
    change(sockets)


def listening_process(path: str) -> int:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(path)
        return credentials_of(caller).pid


@pytest.mark.failure("24")
def test_whoever_comes_to_a_tcp_socket_that_is_about_to_close_comes_again(folder: Path) -> None:
    """It finds the next process, and those who wait are not reset."""
    with bind_tcp("a", TcpAddress("127.0.0.1", 0)) as listener, socket.socket() as early, socket.socket() as late:
        address = listener.getsockname()
        early.connect(address)
        early.send(b"early")
        let_nobody_in(listener)
        late.setblocking(False)
        assert late.connect_ex(address) == errno.EINPROGRESS
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.recv(5) == b"early"
            with pytest.raises(BlockingIOError):
                listener.accept()
        listener.close()
        with bind_tcp("a", TcpAddress(*address)) as successor:
            successor.settimeout(PATIENCE)
            successor.accept()[0].close()


def passes_descriptors(path: str, listener: socket.socket, *passed: int) -> tuple[int, bytes]:
    """The errno that a caller gets when it passes these, and what arrives of its two bytes, "a" with them and "b"."""
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(path)
        said = 0
        try:
            socket.send_fds(caller, [b"a"], list(passed))
        except OSError as error:
            said = error.errno or -1
        caller.sendall(b"b")
        listener.setblocking(True)
        with listener.accept()[0] as accepted:
            return said, accepted.recv(10)


def refusal() -> tuple[int, bytes]:
    """What is right on this kernel: only one that knows the option can refuse them."""
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.getsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS)
        except OSError:
            return 0, b"ab"
    return errno.EPERM, b"b"


@pytest.mark.failure("34")
@pytest.mark.parametrize("count", [1, 3, 253])
def test_descriptors_of_a_caller_are_refused(folder: Path, count: int) -> None:
    sockets = ListenerSet()
    change(sockets, a=unix(folder, "a"))
    (opened,) = sockets.opened.values()
    sock = opened.inheritable().sock
    with open("/dev/null") as null:
        assert passes_descriptors(f"{folder}/a.sock", sock, *[null.fileno()] * count) == refusal()
    assert passes_descriptors(f"{folder}/a.sock", sock) == (0, b"ab")
    change(sockets)


def test_so_they_are_at_a_socket_of_another_process(folder: Path) -> None:
    path = f"{folder}/systemd.sock"
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen()
    opened = OpenListener.inherit(UnixAddress(path), InheritableListener(sock))
    pair = socket.socketpair()
    with pair[0], pair[1]:
        assert passes_descriptors(path, sock, pair[0].fileno(), pair[1].fileno()) == refusal()
    opened.close()


PAIRS = [
    ("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.2"), ("[::]", "127.0.0.1"), ("0.0.0.0", "[::]"),
    ("[::1]", "[0:0::0:1]"), ("[::ffff:127.0.0.1]", "127.0.0.1"), ("[::FFFF:7f00:2]", "0.0.0.0"),
    ("127.0.0.1", "127.0.0.2"), ("127.0.0.1", "[::1]"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_those_overlap_that_the_kernel_does_not_let_listen_together(one: str, other: str) -> None:
    with bind_tcp("a", TcpAddress(ip_port(f"{one}:1").host, 0)) as first:
        port = first.getsockname()[1]
        here, there = (ip_port(f"{each}:{port}") for each in (one, other))
        try:
            bind_tcp("b", there).close()
        except StartError:
            meets = True
        else:
            meets = False
    assert overlap(here, there) is overlap(there, here) is meets


@pytest.mark.failure("24")
def test_what_systemd_stores_stays_at_a_stop_and_goes_with_its_upstream(folder: Path) -> None:
    sockets = ListenerSet()
    change(sockets, a=unix(folder, "a"), b=unix(folder, "b"))
    path, other = folder / "a.sock", folder / "b.sock"
    for opened in sockets.all:
        opened.kept = True
    change(sockets, a=unix(folder, "a"))
    assert not other.exists()
    sockets.finish({}, stops=True)
    sockets.replace({})
    assert path.is_socket()
    path.unlink()


@pytest.mark.failure("24")
def test_the_rights_of_an_inherited_file_need_not_be_known(folder: Path) -> None:
    sockets = ListenerSet()
    change(sockets, a=unix(folder, "a", mode=0o640))
    inheritable = sockets.opened[UnixAddress(f"{folder}/a.sock")].inheritable()
    assert inheritable.lock is not None
    kept = inheritable._replace(sock=inheritable.sock.dup(), lock=os.dup(inheritable.lock), mode=UNKNOWN)
    sockets.leave()
    sockets.inherit({UnixAddress(f"{folder}/a.sock"): kept})
    change(sockets, a=unix(folder, "a", mode=0o600))
    sockets.own()
    assert mode(folder, "a") == 0o600
    sockets.replace({})
