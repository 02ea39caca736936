"""The program by itself, with a door of the test's: what it takes, what it says, how long it waits."""

from __future__ import annotations

import array
import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ID = "3fa2b" * 12
START = {"ociVersion": "1.0.2", "id": ID, "status": "created", "pid": 0, "bundle": "/b", "annotations": {}}
Answer = Callable[[bytes, list[int]], bytes | None]


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[str]]:
    """A process with a network namespace of its own (mark tests ``netns``)."""
    argv = ["unshare", "--net", "sh", "-c", "echo there; exec sleep infinity"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


class OneDoor:
    """Answers one hook, inside a ``with`` block. `said` is what that one said."""

    def __init__(self, path: Path, answer: Answer) -> None:
        self.said: list[tuple[bytes, list[tuple[int, int]]]] = []
        self._answer = answer
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sock.bind(str(path))
        self._sock.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        try:
            hook, _ = self._sock.accept()
        except OSError:
            return
        with hook:
            data, extra, _, _ = hook.recvmsg(1 << 16, 1024)
            descriptors = array.array("i")
            for _, _, content in extra:
                descriptors.frombytes(content)
            self.said.append((data, [(os.fstat(each).st_dev, os.fstat(each).st_ino) for each in descriptors]))
            answer = self._answer(data, descriptors.tolist())
            for each in descriptors:
                os.close(each)
            if answer is None:
                hook.recv(1)  # until it has gone
            elif answer:
                hook.send(answer)

    def __enter__(self) -> OneDoor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._sock.close()


def call(hook: Path, words: list[str], state: object) -> subprocess.CompletedProcess[str]:
    said = state if isinstance(state, bytes) else json.dumps(state).encode()
    done = subprocess.run([hook, *words], input=said, capture_output=True, timeout=60, check=False)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode("latin-1"))


def test_it_stands_alone(hook: Path) -> None:
    assert call(hook, ["version"], b"").stdout == "hostlane-hook 1\n"
    assert b".interp" not in hook.read_bytes(), "it needs a loader, and libraries"
    assert hook.stat().st_size < 1 << 20


@pytest.mark.netns
@pytest.mark.parametrize("strict", [[], ["strict"]])
def test_what_the_door_is_told(
    checked_hook: Path, tmp_path: Path, sleeper: subprocess.Popen[str], strict: list[str]
) -> None:
    annotations = {"a": "}\\\"", "pid": 1, "nested": [{"id": "other"}, []], "": None}
    state = {"annotations": annotations, **START, "pid": sleeper.pid}
    path = tmp_path / "hook.sock"
    with OneDoor(path, lambda data, descriptors: b'{"type":"ready"}') as door:
        done = call(checked_hook, ["start", str(path), "20", *strict], state)
    assert (done.returncode, done.stderr) == (0, "")
    [(data, descriptors)] = door.said
    assert json.loads(data) == {"type": "starting", "id": ID}
    namespace = os.stat(f"/proc/{sleeper.pid}/ns/net")
    assert descriptors[0] == (namespace.st_dev, namespace.st_ino)
    assert len(descriptors) == 2


@pytest.mark.netns
@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b'{"type":"refused","why":"127.77.0.2:6379: \\"taken\\""}', '127.77.0.2:6379: "taken"'),
        (b'{"why":"a\\\\b\\nc","type":"refused"}', "a\\b c"),
        (b'{"type":"later"}', "the door's answer is not understood: use one version of hostlane"),
        (b"ready", "the door's answer is not understood: use one version of hostlane"),
        (b"x" * 9000, "the door's answer is not understood: use one version of hostlane"),
        (b"", "the door has gone without a word"),
        (None, "the door has not answered in time"),
    ],
)
def test_an_answer_that_is_not_yes(
    checked_hook: Path, tmp_path: Path, sleeper: subprocess.Popen[str], answer: bytes | None, why: str
) -> None:
    for strict, code, end in (
        ([], 0, ""),
        (["strict"], 1, "; it is not started, as the device is strict (hostlane cdi install --strict)"),
    ):
        path = tmp_path / f"hook{code}.sock"
        with OneDoor(path, lambda data, descriptors: answer):
            done = call(checked_hook, ["start", str(path), "1", *strict], {**START, "pid": sleeper.pid})
        assert (done.returncode, done.stderr) == (code, f"hostlane-hook: container {ID[:12]}: {why}{end}\n")


@pytest.mark.netns
@pytest.mark.parametrize("code", [0, 1])
def test_nobody_at_the_door(checked_hook: Path, tmp_path: Path, sleeper: subprocess.Popen[str], code: int) -> None:
    path, strict = tmp_path / "hook.sock", ["strict"] * code
    state = {**START, "pid": sleeper.pid}
    done = call(checked_hook, ["start", str(path), "1", *strict], state)
    assert done.returncode == code
    assert f"the door is away ({path}: No such file or directory)" in done.stderr
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left:
        left.bind(str(path))
    done = call(checked_hook, ["start", str(path), "1", *strict], state)
    assert done.returncode == code
    assert "Connection refused" in done.stderr
    done = call(checked_hook, ["start", "/" + "x" * 120, "1", *strict], state)
    assert done.returncode == code
    assert "File name too long" in done.stderr


@pytest.mark.netns
def test_a_strict_container_waits_for_a_door_that_starts(
    checked_hook: Path, tmp_path: Path, sleeper: subprocess.Popen[str]
) -> None:
    path, argv = tmp_path / "hook.sock", [str(checked_hook), "start", str(tmp_path / "hook.sock"), "60", "strict"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as waiting:
        assert waiting.stdin is not None
        waiting.stdin.write(json.dumps({**START, "pid": sleeper.pid}).encode())
        waiting.stdin.close()
        waiting.stdin = None
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(0.2)
        with OneDoor(path, lambda data, descriptors: b'{"type":"ready"}'):
            assert waiting.wait(60) == 0


def test_the_network_of_the_host(checked_hook: Path, tmp_path: Path) -> None:
    done = call(checked_hook, ["start", str(tmp_path / "none"), "1", "strict"], {**START, "pid": os.getpid()})
    assert done.returncode == 1
    assert "its network is the host's, where everybody could call as it does" in done.stderr


STATES: list[tuple[object, str]] = [
    (b"", "is not understood"),
    (b"[]", "is not understood"),
    (b"{", "is not understood"),
    (b'{"id"', "is not understood"),
    (b'{"id":', "is not understood"),
    (b'{"id":"', "is not understood"),
    (b'{"id":"\\', "is not understood"),
    (b'{"x":{"id":"a"}}', "is not understood"),
    (b'{"x":[[[[,"id":"a"}', "is not understood"),
    (b'{"x":}]"id":"a"}', "is not understood"),
    ({"id": ""}, "is not understood"),
    ({"id": "a" * 129}, "is not understood"),
    ({"id": 'a","type":"x'}, "is not understood"),
    ({"id": "a/b"}, "is not understood"),
    ({"id": ID}, "does not say which process it is"),
    ({"id": ID, "pid": -1}, "does not say which process it is"),
    ({"id": ID, "pid": 0}, "does not say which process it is"),
    ({"id": ID, "pid": "1x"}, "does not say which process it is"),
    ({"id": ID, "pid": 1e3}, "does not say which process it is"),
    ({"id": ID, "pid": 2**31}, "does not say which process it is"),
    ({"id": ID, "pid": 10**30}, "does not say which process it is"),
    ({"id": ID, "pid": 2**31 - 1}, "cannot open /proc/2147483647/ns/net: No such file or directory"),
    (b" " * (1 << 19), "is too long, or has no end"),
]


@pytest.mark.parametrize(("state", "why"), STATES)
def test_a_state_that_says_nothing(checked_hook: Path, tmp_path: Path, state: object, why: str) -> None:
    for strict in ([], ["strict"]):
        done = call(checked_hook, ["start", str(tmp_path / "none"), "5", *strict], state)
        assert done.returncode == len(strict)
        assert why in done.stderr
        assert done.stderr.count("\n") == 1


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=200), st.text('{}[]",:\\ide1pa x', max_size=60).map(str.encode)))
def test_whatever_is_said(checked_hook: Path, tmp_path: Path, state: bytes) -> None:
    done = call(checked_hook, ["start", str(tmp_path / "none"), "5", "strict"], state)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("hostlane-hook: container ")


def test_a_runtime_that_does_not_end_its_words(checked_hook: Path, tmp_path: Path) -> None:
    argv = [str(checked_hook), "start", str(tmp_path / "none"), "1"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert b"has no end" in process.stderr.read()


@pytest.mark.parametrize(
    "words",
    [[], ["start"], ["start", "/s"], ["start", "/s", "0"], ["start", "/s", "61"], ["start", "/s", "x"],
     ["start", "/s", "1", "2"], ["go", "/s", "1"], ["stop", "/s", "1", "strict"], ["start", "strict"]],
)  # fmt: skip
def test_other_words(checked_hook: Path, words: list[str]) -> None:
    done = call(checked_hook, words, START)
    assert done.returncode == (words[:1] == ["start"] and words[-1] == "strict")
    assert "use one version of hostlane" in done.stderr


def test_the_end_keeps_nobody(checked_hook: Path, tmp_path: Path) -> None:
    path = tmp_path / "hook.sock"
    words = ["stop", str(path), "1"]
    assert call(checked_hook, words, START).returncode == 0
    with OneDoor(path, lambda data, descriptors: b'{"type":"ready"}') as door:
        done = call(checked_hook, words, START)
    assert (done.returncode, done.stderr) == (0, "")
    assert [(json.loads(data), rights) for data, rights in door.said] == [({"type": "stopped", "id": ID}, [])]
    path.unlink()
    with OneDoor(path, lambda data, descriptors: None):
        assert call(checked_hook, words, START).returncode == 0
