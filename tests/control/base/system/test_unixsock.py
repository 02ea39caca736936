from __future__ import annotations

import errno
import grp
import os
import pwd
import shutil
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from control.base.system.unixsock import BACKLOG, bind_unix, inherit_unix, rebind_unix, reclaim_unix
from proxy.errors import StartError
from tests.tools.sockets import dead_socket, fds_since, names, open_fds, owner_of

pytestmark = pytest.mark.failure(15)

BINDER = Path(__file__).with_name("binder.py")
NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="not root (changing owner and user needs it)")


def refusal(path: Path | str, **options: Any) -> str:
    """The text of the StartError; besides, that it is one line and that no descriptor was lost over it."""
    before = open_fds()
    with pytest.raises(StartError) as caught:
        bind_unix(str(path), **options)
    text = str(caught.value)
    assert text.startswith(f"cannot listen on unix:{path}: ")
    assert "\n" not in text
    assert not fds_since(before)
    return text.removeprefix(f"cannot listen on unix:{path}: ")


# ------------------------------------------------------------------------------------------------ binding and closing


def test_bind_serve_close(directory: Path) -> None:
    path = directory / "redis.sock"
    with bind_unix(str(path)) as bound:
        assert bound.path == str(path)
        assert names(directory) == [".redis.sock.lock", "redis.sock"]
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            accepted, _ = bound.socket.accept()
            with accepted:
                client.sendall(b"hello")
                assert accepted.recv(5) == b"hello"
    assert names(directory) == []
    bound.close()


@pytest.mark.failure("24")
def test_refusing_lets_those_in_who_wait_and_nobody_else(directory: Path) -> None:
    path = str(directory / "a.sock")
    with bind_unix(path) as bound, ExitStack() as clients:
        for number in range(3):
            client = clients.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(path)
            client.sendall(b"%d" % number)
        bound.refuse()
        assert names(directory) == [".a.sock.lock", "a.sock"], "the file goes last"
        with socket.socket(socket.AF_UNIX) as late, pytest.raises(ConnectionRefusedError):
            late.connect(path)
        for number in range(3):
            with bound.socket.accept()[0] as accepted:
                assert accepted.recv(1) == b"%d" % number
        with pytest.raises(BlockingIOError):
            bound.socket.accept()


@pytest.mark.failure("24")
def test_a_socket_of_another_process_refuses_nobody(directory: Path) -> None:
    path = str(directory / "a.sock")
    with bind_unix(path) as bound:
        bound.own(False)
        bound.refuse()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
        bound.own()


def test_the_socket_is_ready_for_trio(directory: Path) -> None:
    with bind_unix(str(directory / "s")) as bound:
        assert bound.socket.family == socket.AF_UNIX
        assert bound.socket.type == socket.SOCK_STREAM
        assert bound.socket.getblocking() is False
        assert bound.socket.get_inheritable() is False
        assert bound.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        with pytest.raises(BlockingIOError):
            bound.socket.accept()


def test_the_backlog_is_what_was_asked_for(directory: Path) -> None:
    def room(backlog: int) -> int:
        with bind_unix(str(directory / "s"), backlog=backlog), ExitStack() as clients:
            for count in range(backlog + 2):
                client = clients.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                try:
                    client.connect(str(directory / "s"))
                except BlockingIOError:
                    return count
            return backlog + 2

    assert room(3) == 4  # the kernel keeps one more than it was told
    assert BACKLOG == 4096


def test_no_descriptor_is_left_after_close(directory: Path) -> None:
    before = open_fds()
    for _ in range(3):
        bind_unix(str(directory / "s")).close()
    assert not fds_since(before)


def test_two_sockets_in_one_directory_are_apart(directory: Path) -> None:
    with bind_unix(str(directory / "a")), bind_unix(str(directory / "b")):
        assert owner_of(directory / "a") == owner_of(directory / "b") == os.getpid()
    assert names(directory) == []


@pytest.mark.parametrize("letter", ["n", "ü"])
@pytest.mark.parametrize("bytes_in_name", [1, 57, 58, 61, 80])
def test_paths_up_to_107_bytes(directory: Path, letter: str, bytes_in_name: int) -> None:
    name = ("n" * (bytes_in_name % len(letter.encode()))) + letter * (bytes_in_name // len(letter.encode()))
    filler = 107 - len(str(directory)) - bytes_in_name - 2
    path = directory / ("d" * filler) / name
    assert len(os.fsencode(path)) == 107
    for _ in range(2):
        with bind_unix(str(path)):
            assert owner_of(path) == os.getpid()
        assert names(path.parent) == []
        dead_socket(path)


def test_a_path_of_108_bytes_is_refused(directory: Path) -> None:
    path = str(directory / ("n" * (108 - len(str(directory)) - 1)))
    assert refusal(path) == "the path has 108 bytes, a Unix socket's at most 107; choose a shorter one"
    assert names(directory) == []


@pytest.mark.parametrize("path", ["@hostlane", "redis.sock", "/run/hostlane/"])
def test_only_absolute_paths_of_files(path: str) -> None:
    assert "absolute path" in refusal(path)


# --------------------------------------------------------------------------------------------- mode, owner, directory


@pytest.fixture(params=[0o077, 0o000, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    old = os.umask(request.param)
    yield request.param
    os.umask(old)


@pytest.mark.parametrize("mode", [0o666, 0o660, 0o600])
@pytest.mark.usefixtures("umask")
def test_mode_whatever_the_umask(directory: Path, mode: int) -> None:
    with bind_unix(str(directory / "s"), mode=mode):
        assert stat.S_IMODE((directory / "s").stat().st_mode) == mode


def test_everybody_may_connect_by_default(directory: Path) -> None:
    with bind_unix(str(directory / "s")):
        assert stat.S_IMODE((directory / "s").stat().st_mode) == 0o666


def test_missing_directories_are_created_and_stay(directory: Path, umask: int) -> None:
    if os.geteuid() != 0 and umask == 0o777:
        pytest.skip("without root, nobody can use a directory that nobody may enter")
    with bind_unix(str(directory / "a" / "b" / "s")):
        assert [stat.S_IMODE((directory / path).stat().st_mode) for path in ("a", "a/b")] == [0o755, 0o755]
    assert names(directory / "a" / "b") == []


def test_a_directory_that_exists_keeps_its_mode(directory: Path) -> None:
    directory.chmod(0o700)
    with bind_unix(str(directory / "s")):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_directory_may_be_a_link(directory: Path) -> None:
    (directory / "real").mkdir()
    (directory / "link").symlink_to("real")
    with bind_unix(str(directory / "link" / "s")):
        assert owner_of(directory / "real" / "s") == os.getpid()


def test_the_directory_was_created_by_another_process_meanwhile(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir = os.mkdir

    def too_late(path: str, mode: int) -> None:
        mkdir(path, mode)
        mkdir(path, mode)

    monkeypatch.setattr(os, "mkdir", too_late)
    with bind_unix(str(directory / "d" / "s")):
        assert owner_of(directory / "d" / "s") == os.getpid()


@needs_root
@pytest.mark.parametrize("as_text", [int, str], ids=["number", "text"])
def test_owner_and_group_by_number(directory: Path, as_text: Callable[[int], int | str]) -> None:
    with bind_unix(str(directory / "s"), mode=0o640, owner=as_text(12345), group=as_text(23456)):
        status = (directory / "s").stat()
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (12345, 23456, 0o640)
    assert names(directory) == []


@needs_root
def test_owner_and_group_by_name_each_alone(directory: Path) -> None:
    user, group = pwd.getpwuid(1), grp.getgrgid(2)
    with bind_unix(str(directory / "s"), owner=user.pw_name):
        assert ((directory / "s").stat().st_uid, (directory / "s").stat().st_gid) == (1, os.getegid())
    with bind_unix(str(directory / "s"), group=group.gr_name):
        assert ((directory / "s").stat().st_uid, (directory / "s").stat().st_gid) == (os.geteuid(), 2)


@pytest.mark.parametrize("value", ["no-such-name", "", "-1", "a\0b"])
def test_unknown_names(directory: Path, value: str) -> None:
    assert refusal(directory / "s", owner=value).startswith(f"there is no user {value!r} here; write an existing user")
    assert refusal(directory / "s", group=value).startswith(f"there is no group {value!r} here; write")
    assert names(directory) == []


@pytest.mark.parametrize("value", [-1, 2**32 - 1, 2**32])
def test_numbers_out_of_range(directory: Path, value: int) -> None:
    assert refusal(directory / "s", owner=value) == f"{value} is not the number of a user; allowed are 0 to 4294967294"


# ------------------------------------------------------------------------------------------------- what is in the way


def test_a_dead_socket_is_replaced(directory: Path) -> None:
    dead_socket(directory / "s")
    with bind_unix(str(directory / "s"), mode=0o600):
        assert owner_of(directory / "s") == os.getpid()
        assert stat.S_IMODE((directory / "s").stat().st_mode) == 0o600
    assert names(directory) == []


def test_a_dead_socket_under_the_temporary_name_is_replaced(directory: Path) -> None:
    dead_socket(directory / ".s.new")
    with bind_unix(str(directory / "s")):
        assert names(directory) == [".s.lock", "s"]


def test_a_live_owner_that_knows_nothing_of_locks(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(directory / "s"))
        other.listen()
        text = refusal(directory / "s")
        assert text == f"process {os.getpid()} already listens there; stop it or choose another path"
        assert names(directory) == ["s"]
        other.accept()[0].close()
        assert owner_of(directory / "s") == os.getpid()


def test_a_second_proxy(directory: Path) -> None:
    with bind_unix(str(directory / "s")):
        assert refusal(directory / "s").startswith(f"process {os.getpid()} already listens there; ")
        assert owner_of(directory / "s") == os.getpid()
        assert names(directory) == [".s.lock", "s"]


def test_a_second_proxy_while_the_first_has_no_socket_yet(directory: Path) -> None:
    with bind_unix(str(directory / "s")):
        (directory / "s").unlink()
        assert refusal(directory / "s") == (
            f"a process that is just starting or stopping holds {directory}/.s.lock; try again"
        )


@pytest.mark.parametrize("name", ["s", ".s.new"])
def test_files_that_are_not_sockets_stay(directory: Path, name: str) -> None:
    makers: list[Callable[[Path], Any]] = [
        lambda path: path.write_text("kept"),
        lambda path: path.mkdir(),
        lambda path: path.symlink_to("nowhere"),
        lambda path: os.mkfifo(path),
    ]
    for make in makers:
        path = directory / name
        make(path)
        before = path.lstat()
        assert refusal(directory / "s").endswith("; remove it or choose another path")
        assert path.lstat() == before
        assert names(directory) == [name]
        path.rmdir() if stat.S_ISDIR(before.st_mode) else path.unlink()


def test_a_link_to_a_dead_socket_stays(directory: Path) -> None:
    dead_socket(directory / "dead")
    (directory / "s").symlink_to("dead")
    assert f"{directory}/s is a symbolic link" in refusal(directory / "s")
    assert names(directory) == ["dead", "s"]


def test_a_file_where_the_directory_should_be(directory: Path) -> None:
    (directory / "file").touch()
    (directory / "dangling").symlink_to("nowhere")
    assert refusal(directory / "file" / "s").startswith(f"{directory}/file is not a directory; ")
    assert refusal(directory / "file" / "d" / "s").startswith(f"{directory}/file is not a directory; ")
    assert refusal(directory / "dangling" / "s").startswith(f"{directory}/dangling is not a directory; ")


def test_another_program_takes_the_path_at_the_last_moment(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link
    with socket.socket(socket.AF_UNIX) as other:

        def too_late(*arguments: Any, **options: Any) -> None:
            other.bind(str(directory / "s"))
            other.listen()
            link(*arguments, **options)

        monkeypatch.setattr(os, "link", too_late)
        assert refusal(directory / "s").startswith("another program has just taken this path; ")
        assert owner_of(directory / "s") == os.getpid()
    assert names(directory) == ["s"]


# ---------------------------------------------------------------------- a client never finds an unfinished socket


@pytest.mark.parametrize("stale", [False, True], ids=["fresh", "stale"])
@pytest.mark.parametrize("links", [True, False], ids=["link", "no hard links"])
def test_the_path_is_taken_in_one_step_when_all_is_ready(
    directory: Path, monkeypatch: pytest.MonkeyPatch, stale: bool, links: bool
) -> None:
    """Looked at just before the step and just after it, which is all that a client can find."""
    if stale:
        dead_socket(directory / "s")
    steps: list[str] = []

    def watched(step: Callable[..., None]) -> Callable[..., None]:
        def take(source: str, *arguments: Any, **options: Any) -> None:
            before = (directory / "s").stat().st_ino if stale else None
            assert (before is None) is not (directory / "s").exists()
            ready = (directory / source).stat()
            assert stat.S_IMODE(ready.st_mode) == 0o640
            assert owner_of(directory / source) == os.getpid()
            step(source, *arguments, **options)
            assert (directory / "s").stat().st_ino == ready.st_ino
            assert owner_of(directory / "s") == os.getpid()
            steps.append(step.__name__)

        return take

    def no_links(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", watched(os.link) if links else no_links)
    monkeypatch.setattr(os, "rename", watched(os.rename))
    with bind_unix(str(directory / "s"), mode=0o640):
        assert steps == (["link"] if links and not stale else ["rename"])
        assert names(directory) == [".s.lock", "s"]
    assert names(directory) == []


# ---------------------------------------------------------------------------------------- never somebody else's file


def test_close_leaves_the_file_of_a_successor(directory: Path) -> None:
    first = bind_unix(str(directory / "s"))
    for name in names(directory):
        (directory / name).unlink()
    with bind_unix(str(directory / "s")):
        first.close()
        assert owner_of(directory / "s") == os.getpid()
        assert names(directory) == [".s.lock", "s"]


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, dead_socket], ids=["file", "directory", "socket"])
def test_close_leaves_what_took_the_place_of_its_socket(directory: Path, make: Callable[[Path], None]) -> None:
    with bind_unix(str(directory / "s")):
        (directory / "s").unlink()
        make(directory / "s")
    assert names(directory) == ["s"]


def test_close_after_the_directory_was_made_anew(directory: Path) -> None:
    inner = directory / "d"
    bound = bind_unix(str(inner / "s"))
    shutil.rmtree(inner)
    inner.mkdir()
    (inner / "s").touch()
    bound.close()
    assert names(inner) == ["s"]


def test_close_after_the_directory_was_renamed(directory: Path) -> None:
    bound = bind_unix(str(directory / "old" / "s"))
    (directory / "old").rename(directory / "new")
    bound.close()
    assert names(directory / "new") == []


def test_close_never_raises(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_fds()
    bound = bind_unix(str(directory / "s"))
    monkeypatch.setattr(os, "unlink", failing(errno.EROFS))
    bound.close()
    assert not fds_since(before)
    monkeypatch.undo()
    with bind_unix(str(directory / "s")):
        assert owner_of(directory / "s") == os.getpid()


# ------------------------------------------------------------------------------------------------ what the system says


def failing(number: int) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EMFILE, errno.EIO])
@pytest.mark.parametrize(
    ("module", "call", "doing"),
    [
        (os, "mkdir", "creating directory {}/d: "),
        (os, "open", "creating directory {}/d: "),
        (socket.socket, "bind", "creating {}/d/.s.new: "),
        (os, "chmod", "setting mode 0666: "),
        (os, "chown", f"giving the socket to user {os.geteuid()} and group {os.getegid()}: "),
        (socket.socket, "listen", "putting the socket in place: "),
        (os, "unlink", "putting the socket in place: "),
    ],
    ids=["mkdir", "open", "bind", "chmod", "chown", "listen", "unlink"],
)
def test_whatever_fails_is_one_line(
    directory: Path, monkeypatch: pytest.MonkeyPatch, module: Any, call: str, doing: str, number: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, call, failing(number))
        text = refusal(directory / "d" / "s", owner=os.geteuid(), group=os.getegid())
    assert text.startswith(doing.format(directory) + os.strerror(number))
    # No trace of the attempt keeps the next one from succeeding.
    with bind_unix(str(directory / "d" / "s")):
        assert owner_of(directory / "d" / "s") == os.getpid()


@contextmanager
def as_nobody() -> Iterator[None]:
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@needs_root
def test_an_ordinary_user(directory: Path) -> None:
    (directory / "mine").mkdir()
    os.chown(directory / "mine", NOBODY, NOBODY)
    dead_socket(directory / "mine" / "dead")
    with as_nobody():
        denied = "Permission denied; run the proxy as a user who may (now it is uid 65534) or choose another directory"
        assert refusal(directory / "s") == f"locking {directory}/.s.lock: {denied}"
        assert refusal(directory / "d" / "s") == f"creating directory {directory}/d: {denied}"
        assert refusal(directory / "mine" / "s", owner=0).startswith(
            "giving the socket to user 0: Operation not permitted; run the proxy as a user who may (now"
        )
        assert refusal(directory / "mine" / "dead") == f"looking who listens there: {denied}"
        assert names(directory / "mine") == ["dead"]
        with bind_unix(str(directory / "mine" / "s")):
            assert owner_of(directory / "mine" / "s") == os.getpid()
        assert names(directory / "mine") == ["dead"]


@needs_root
def test_the_lock_file_of_another_user(directory: Path) -> None:
    directory.chmod(0o777)
    with bind_unix(str(directory / "s")), as_nobody():
        assert refusal(directory / "s").startswith(f"locking {directory}/.s.lock: Permission denied; ")


@needs_root
@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("ro", "locking {}/.s.lock: Read-only file system; mount it writable or choose another directory"),
        ("nr_inodes=2", "creating {}/.s.new: No space left on device; make room (df, df -i) or choose another"),
    ],
    ids=["read-only", "full"],
)
def test_file_systems_that_refuse(directory: Path, options: str, complaint: str) -> None:
    path = directory / "s"
    script = f'mount -t tmpfs -o {options} none "$1" || exit 77; echo bind 0 | "$2" "$3" "$1/s"; ls -A "$1"'
    argv = ["unshare", "--mount", "sh", "-c", script, "sh", str(directory), sys.executable, str(BINDER)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == 77 or done.stderr.startswith("unshare:"):
        pytest.skip(f"no right to mount: {done.stderr.strip()}")
    assert done.stdout.startswith(f"cannot listen on unix:{path}: {complaint.format(directory)}")
    assert done.stdout.count("\n") == 1, "one line, and the directory is as empty as it was"


# ------------------------------------------------------------------------------ a file that somebody else has removed


def reach(path: Path) -> bytes:
    """What is heard at the path: a byte from whichever socket accepts there."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.settimeout(20)
        return client.recv(1)


def answer(listener: socket.socket, said: bytes) -> None:
    accepted, _ = listener.accept()
    with accepted:
        accepted.send(said)


def remove_socket(directory: Path) -> None:
    (directory / "s").unlink()


def remove_both(directory: Path) -> None:
    for name in names(directory):
        (directory / name).unlink()


def remove_directory(directory: Path) -> None:
    shutil.rmtree(directory)


def move_directory(directory: Path) -> None:
    directory.rename(directory.with_name("elsewhere"))


@pytest.mark.failure("30")
@pytest.mark.parametrize("lose", [remove_socket, remove_both, remove_directory, move_directory])
def test_the_path_is_bound_again(tmp_path: Path, lose: Callable[[Path], None]) -> None:
    before, directory = open_fds(), tmp_path / "d"
    directory.mkdir()
    kept = tmp_path / "kept"
    lost = bind_unix(str(directory / "s"), mode=0o660)
    os.link(directory / "s", kept)  # as a container sees it that has the file mounted
    lose(directory)
    assert not lost.in_place
    found = rebind_unix(lost, mode=0o640)
    assert found.in_place
    assert stat.S_IMODE((directory / "s").stat().st_mode) == 0o640
    for listener, path, said in ((lost.socket, kept, b"l"), (found.socket, directory / "s", b"f")):
        thread = threading.Thread(target=answer, args=(listener, said))
        listener.setblocking(True)
        thread.start()
        assert reach(path) == said
        thread.join()
    for _ in range(2):  # the lock holds, whoever of the two is closed first
        assert "already listens there" in refusal(directory / "s")
        lost.close()
    assert names(directory) == [".s.lock", "s"]
    found.close()
    assert names(directory) == []
    assert not fds_since(before)


@pytest.mark.failure("30")
def test_a_path_that_somebody_else_has_taken(tmp_path: Path) -> None:
    before = open_fds()
    with bind_unix(str(tmp_path / "s")) as lost, socket.socket(socket.AF_UNIX) as other:
        (tmp_path / "s").unlink()
        other.bind(str(tmp_path / "s"))
        other.listen()
        during = open_fds()
        with pytest.raises(StartError, match=f"^cannot listen on unix:{tmp_path}/s: .* already listens there"):
            rebind_unix(lost)
        assert open_fds() == during
        assert names(tmp_path) == [".s.lock", "s"]
        (tmp_path / "s").unlink()
        with rebind_unix(lost) as found:
            assert found.in_place
            assert names(tmp_path) == [".s.lock", "s"]
    assert names(tmp_path) == []
    assert not fds_since(before)


@pytest.mark.failure("24")
def test_a_socket_that_somebody_has_kept(directory: Path) -> None:
    """Its maker has crashed: the next process gets the socket, and takes the lock."""
    before = open_fds()
    path = directory / "kept.sock"
    with bind_unix(str(path)) as made:
        assert reclaim_unix(made.path, made.birth) is None, "it lives"
        birth, kept = made.birth, made.socket.dup()
        made.own(False)  # so that its files stay
    lock = reclaim_unix(str(path), birth)
    assert lock is not None
    assert reclaim_unix(str(path), birth) is None
    assert "already listens there" in refusal(path)
    with inherit_unix(str(path), kept, lock, birth) as bound:
        bound.own()
        assert bound.in_place
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    assert not path.exists()
    assert not fds_since(before)


@pytest.mark.failure("24")
def test_a_kept_socket_whose_path_is_not_its_own_any_more(directory: Path) -> None:
    before = open_fds()
    path = directory / "kept.sock"
    with bind_unix(str(path)) as made:
        birth = made.birth
    assert reclaim_unix(str(path), birth) is None, "it is gone"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        assert reclaim_unix(str(path), birth) is None, "another one"
        found = path.stat()
        assert reclaim_unix(str(directory / "nowhere" / "x"), birth) is None
        assert reclaim_unix("relative", birth) is None
    path.unlink()
    path.touch()
    found = path.stat()
    assert reclaim_unix(str(path), birth._replace(device=found.st_dev, inode=found.st_ino)) is None, "no socket"
    assert not fds_since(before)


@pytest.mark.failure("24")
def test_another_kind_of_socket(directory: Path) -> None:
    with bind_unix(str(directory / "x.sock"), kind=socket.SOCK_SEQPACKET) as bound:
        assert bound.socket.type == socket.SOCK_SEQPACKET
        assert "already listens there" in refusal(directory / "x.sock")
