"""One proxy for each state_dir, whatever becomes of the one that has it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from proxy.errors import StartError
from proxy.mesh.statelock import StateLock

pytestmark = pytest.mark.failure("22")

HOLD = """
import sys, time
from proxy.mesh.statelock import StateLock
lock = StateLock(sys.argv[1])
lock.take()
print(lock.secret, flush=True)
time.sleep(600)
"""


@pytest.fixture
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    with capture_logs() as entries:
        yield entries


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def taken(path: Path) -> StateLock:
    lock = StateLock(str(path))
    lock.take()
    return lock


def test_another_process_is_named_and_after_kill_9_the_next_one_has_it(state: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(state)], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            secret = holder.stdout.readline().strip()
            for path in (state, state / ".." / "state"):
                with pytest.raises(StartError, match=f"process {holder.pid} uses it; stop it, or take its place"):
                    taken(path)
        finally:
            holder.send_signal(signal.SIGKILL)
            holder.wait()
    after = taken(state)
    assert after.secret == secret, "which outlives the process"
    after.close()


PREDECESSOR = """
import os, sys, time
from proxy.mesh.statelock import StateLock
lock = StateLock(sys.argv[1])
lock.take()
if os.fork() == 0:
    lock.own()
    os._exit(0)
os.wait()
print(open(sys.argv[1] + "/lock").read(), flush=True)
time.sleep(600)
"""


@pytest.mark.failure("31")
@pytest.mark.parametrize("content", [None, b"", b"1\n", b"4194305\n", b"\xff\xff"])
def test_who_drains_is_named_when_its_successor_was_killed(state: Path, content: bytes | None) -> None:
    with subprocess.Popen([sys.executable, "-c", PREDECESSOR, str(state)], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline().strip() not in ("", str(holder.pid))
            if content is not None:
                (state / "lock").write_bytes(content)
            with pytest.raises(StartError, match=f"process {holder.pid} uses it; stop it, or take its place"):
                taken(state)
        finally:
            holder.kill()
            holder.wait()


HIDDEN = """
import os, sys
from proxy.errors import StartError
from proxy.mesh.statelock import StateLock
os.setgid(65534)
os.setuid(65534)
try:
    StateLock(sys.argv[1]).take()
except StartError as error:
    print(error)
"""


@pytest.mark.failure("31")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
@pytest.mark.parametrize(
    ("mount", "whoever"),
    [
        ("-t proc -o hidepid=2 proc", "another process"),
        ("-t tmpfs -o mode=700 tmpfs", "process {pid}"),
        ("-t tmpfs tmpfs", "another process"),
    ],
)
def test_where_processes_are_hidden_it_is_whoever_the_file_says_or_another(
    state: Path, mount: str, whoever: str
) -> None:
    """From nobody, here, whose state_dir it is. What may not be looked at is what the file says, and no traceback."""
    holder = taken(state)
    for path in (state, *state.iterdir()):
        os.chown(path, 65534, 65534)
    # The directories above are another user's only: nobody gets there by a mount.
    script = f'mount --bind "$1" /mnt && mount {mount} /proc && exec "$2" -c "$3" /mnt'
    argv = ["unshare", "--mount", "sh", "-ec", script, "sh", str(state), sys.executable, HIDDEN]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    holder.close()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"control.state_dir: /mnt: {whoever.format(pid=os.getpid())} uses it; stop it")


STALLED = """
import os, sys, time
from proxy.mesh.statelock import StateLock
other = os.open(sys.argv[2], os.O_RDONLY)
lock = StateLock(sys.argv[1])
lock.take()
assert other < lock.descriptor
print(flush=True)
time.sleep(600)
"""


@pytest.mark.failure("31")
def test_who_looks_for_the_holder_asks_nothing_of_other_files(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them may be on a network mount that is dead, where whoever asks for its status hangs."""
    asked: list[str] = []
    stat = os.stat

    def watched(path: Any, *more: Any, **options: Any) -> os.stat_result:
        asked.append(os.readlink(path) if str(path).startswith("/proc/") else "")
        return stat(path, *more, **options)

    argv = [sys.executable, "-c", STALLED, str(state), __file__]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            holder.stdout.readline()
            monkeypatch.setattr(os, "stat", watched)
            with pytest.raises(StartError, match=f"process {holder.pid} uses it"):
                taken(state)
        finally:
            holder.kill()
            holder.wait()
    assert {each for each in asked if each} == {str(state / "lock")}


def test_the_secret_is_for_its_owner_only_and_made_again_when_it_is_none(state: Path) -> None:
    first = taken(state)
    first.close()
    file = state / "secret"
    assert (len(first.secret), file.stat().st_mode & 0o777) == (64, 0o600)
    for content in (b"", first.secret[:10].encode(), b"\xff" * 64, b"x" * 1000):
        file.write_bytes(content)
        again = taken(state)
        again.close()
        assert len(again.secret) == 64
        assert again.secret != first.secret
        assert file.read_text().strip() == again.secret


def test_a_successor_holds_the_same_lock(state: Path) -> None:
    old, new = taken(state), StateLock(str(state))
    new.take(patient=True)
    assert new.descriptor is None, "the old one has it still"
    assert old.descriptor is not None
    assert new.identity is None
    new.expect(old.identity, 7)
    assert new.descriptor is None, "it has been named, and is still to come"
    new.inherit(os.dup(old.descriptor), 7)
    old.close()
    old.close()
    with pytest.raises(StartError, match="uses it"):
        taken(state)
    new.own()
    assert (state / "lock").read_text() == f"{os.getpid()}\n"
    new.close()
    taken(state).close()


def test_a_successor_of_another_proxy_is_refused(state: Path, tmp_path: Path) -> None:
    holder, other, new = taken(state), taken(tmp_path / "other"), StateLock(str(state))
    new.take(patient=True)
    assert other.descriptor is not None
    with pytest.raises(StartError, match=r"not the proxy to take over from \(that is process 7\)"):
        new.inherit(os.dup(other.descriptor), 7)
    with pytest.raises(StartError, match="there is none in run_dir"):
        new.inherit(None, None)
    for offered in (other.identity, None):
        with pytest.raises(StartError, match=r"not the proxy to take over from \(that is process 7\)"):
            new.expect(offered, 7)
    holder.close()
    new.expect(None, 7)
    assert new.descriptor is not None, "a predecessor of an earlier version holds none"
    for lock in (other, new):
        lock.close()


def test_a_directory_that_takes_no_file_is_said_and_no_reason_not_to_start(
    tmp_path: Path, logs: list[MutableMapping[str, Any]]
) -> None:
    (tmp_path / "file").write_text("")
    lock = StateLock(str(tmp_path / "file"))
    lock.take()
    assert (lock.secret, lock.descriptor) == ("", None)
    assert [entry["error"] for entry in logs] == ["not a directory"] * 2
