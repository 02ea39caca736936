from __future__ import annotations

import errno
import os
import resource
import shutil
import socket
import stat
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from proxy.errors import StartError
from proxy.pool import record
from proxy.pool.record import Recorder
from proxy.pool.recorded import RecordedUse, encode, read
from tests.tools.sockets import PATIENCE, fds_since, open_fds


def written(path: Path) -> list[RecordedUse]:
    return list(read(path.read_bytes().splitlines(), "f"))


def test_what_was_noted_is_there_when_it_is_closed(tmp_path: Path) -> None:
    before, path = open_fds(), tmp_path / "uses"
    recorder = Recorder(str(path), 1 << 20)
    recorder.open()
    recorder.note("b", 1.5, 10)
    recorder.note("c", 0.0, 0)
    recorder.close()
    recorder.close()
    assert [(use.peer, use.duration, use.bytes) for use in written(path)] == [("b", 1.5, 10), ("c", 0.0, 0)]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not fds_since(before)


def test_it_is_added_to_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "uses"
    for peer in ("b", "c"):
        recorder = Recorder(str(path), 1 << 20)
        recorder.open()
        recorder.note(peer, 1.0, 1)
        recorder.close()
    assert [use.peer for use in written(path)] == ["b", "c"]


@pytest.mark.parametrize("kind", ["a named pipe", "a directory", "a socket", "a device"])
def test_what_is_no_file_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    """A pipe that nobody reads kept the start waiting for ever, and the end of a reader was an error in the log."""
    before, path = open_fds(), tmp_path / "uses"
    with socket.socket(socket.AF_UNIX) as sock:
        if kind == "a named pipe":
            os.mkfifo(path)
        elif kind == "a directory":
            path.mkdir()
        elif kind == "a socket":
            sock.bind(str(path))
        else:
            path.symlink_to("/dev/null")
        with pytest.raises(StartError) as caught:
            Recorder(str(path), 1 << 20).open()
    expected = f"pool.record: {path}: found {kind}; allowed: a regular file, or the name of a new one"
    assert str(caught.value) == expected
    assert not fds_since(before)


async def test_it_is_written_while_the_proxy_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "INTERVAL", 0.01)
    path = tmp_path / "uses"
    recorder = Recorder(str(path), 1 << 20)
    recorder.open()
    async with trio.open_nursery() as nursery:
        await nursery.start(recorder.run)
        recorder.note("b", 1.0, 1)
        with trio.fail_after(PATIENCE):
            while not path.stat().st_size:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    recorder.close()
    assert len(written(path)) == 1


@pytest.mark.failure(19, 20)
async def test_the_file_is_bounded(tmp_path: Path, threadless: None, autojump_clock: MockClock) -> None:
    path = tmp_path / "uses"
    limit = 3 * len(encode(RecordedUse(time=1e9 + 0.123456, peer="b", duration=1.0, bytes=1))) + 20
    recorder = Recorder(str(path), limit)
    recorder.open()
    for _ in range(10):
        recorder.note("b", 1.0, 1)
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            await nursery.start(recorder.run)
            await trio.sleep(3 * record.INTERVAL)
            recorder.note("b", 1.0, 1)
            await trio.sleep(3 * record.INTERVAL)
            nursery.cancel_scope.cancel()
    recorder.close()
    assert path.stat().st_size <= limit
    assert 2 <= len(written(path)) <= 3
    assert recorder.dropped == 11 - len(written(path))
    assert [entry["event"] for entry in logs] == ["uses are not recorded"]
    assert "pool.record_limit" in recorder.stopped


@pytest.mark.failure("30")
@pytest.mark.parametrize("way", ["moved", "moved and made anew", "removed", "copied and emptied", "another directory"])
def test_rotated(tmp_path: Path, way: str) -> None:
    """Whoever rotates logs moves the file away, or copies and empties it; none of them tells the proxy."""
    folder = tmp_path / "now"
    folder.mkdir()
    path, old, before = folder / "uses", tmp_path / "old", open_fds()
    recorder = Recorder(str(path), 200)
    recorder.open()
    with capture_logs() as logs:
        for _ in range(9):
            recorder.note("before", 1.0, 1)
        recorder._write(recorder._take())
        assert recorder.stopped
        size = path.stat().st_size
        match way:
            case "moved" | "moved and made anew":
                path.rename(old)
                if way != "moved":
                    path.write_bytes(b"")
            case "removed":
                path.unlink()
            case "copied and emptied":
                shutil.copy(path, old)
                os.truncate(path, 0)
            case _:
                folder.rename(tmp_path / "then")
                folder.mkdir()
        recorder.note("after", 1.0, 1)
        recorder._write(recorder._take())
        assert not recorder.stopped
        recorder.note("after", 1.0, 1)
        recorder.close()
    assert [use.peer for use in written(path)] == ["after", "after"]
    if old.exists():
        assert old.stat().st_size == size
        assert {use.peer for use in written(old)} == {"before"}
    assert [entry["event"] for entry in logs] == ["uses are not recorded", "uses are recorded again"]
    assert not fds_since(before)


@pytest.mark.failure("30")
def test_a_name_that_is_taken_by_something_else(tmp_path: Path) -> None:
    """What was noted meanwhile is lost; when the name is free again, recording goes on."""
    path, before = tmp_path / "uses", open_fds()
    recorder = Recorder(str(path), 1 << 20)
    recorder.open()
    path.rename(tmp_path / "old")
    os.mkfifo(path)
    with capture_logs() as logs:
        for _ in range(3):
            recorder.note("b", 1.0, 1)
            recorder._write(recorder._take())
        assert "found a named pipe" in recorder.stopped
        path.unlink()
        recorder.note("c", 1.0, 1)
        recorder.close()
    assert [use.peer for use in written(path)] == ["c"]
    assert [entry["event"] for entry in logs] == ["uses are not recorded", "uses are recorded again"]
    assert recorder.dropped == 3
    assert not fds_since(before)


@pytest.mark.failure(19, 20)
def test_what_waits_to_be_written_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "MOST_NOTED", 5)
    path = tmp_path / "uses"
    recorder = Recorder(str(path), 1 << 20)
    recorder.open()
    for _ in range(9):
        recorder.note("b", 1.0, 1)
    recorder.close()
    assert (len(written(path)), recorder.dropped) == (5, 4)


def test_a_full_disk_costs_the_recording_only(tmp_path: Path) -> None:
    recorder = Recorder(str(tmp_path / "uses"), 1 << 20)
    recorder.open()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with capture_logs() as logs:
            for _ in range(3):
                recorder.note("b", 1.0, 1)
                recorder._write(recorder._take())
            recorder._write([])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [(entry["event"], entry["error"]) for entry in logs] == [("uses are not recorded", os.strerror(errno.EFBIG))]
    recorder.note("c", 1.0, 1)
    recorder.close()
    assert ([use.peer for use in written(tmp_path / "uses")], recorder.dropped) == (["c"], 3)


def test_a_disk_that_fills_up_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, write, room = tmp_path / "uses", os.write, 100

    def fills_up(fd: int, data: bytes) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = write(fd, data[:room])
        room -= taken
        return taken

    recorder = Recorder(str(path), 1 << 20)
    recorder.open()
    recorder.note("b", 1.0, 1)
    recorder._write(recorder._take())
    monkeypatch.setattr(os, "write", fills_up)
    for _ in range(10):
        recorder.note("c", 1.0, 1)
    with capture_logs() as logs:
        recorder.close()
    assert [entry["error"] for entry in logs] == ["No space left on device"]
    assert [use.peer for use in written(path)] == ["b"]


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=rf"^pool\.record: {tmp_path}/none/uses: No such file or directory$"):
        Recorder(str(tmp_path / "none" / "uses"), 1).open()
