from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import instructions
from benchmarks.build import slow_clock

PROFILE = """\
# callgrind format
version: 1
cmd: python
positions: line
events: Ir
summary: 1000

ob=(1) /usr/bin/python3.11
fl=(1) ???
fn=(1) PyObject_Call
0 100
cob=(2) /x/proxy/mux/replay.core-0123456789abcdef.cpython-311-x86_64-linux-gnu.so
cfn=(2) put
calls=7 0
0 500
+3 11

ob=(2)
fn=(2)
* 40
-2 2
+1
cob=(1)
cfn=(1)
calls=1 0
* 9000
"""


def test_what_a_callee_took_is_its_own() -> None:
    replay = "/x/proxy/mux/replay.core-0123456789abcdef.cpython-311-x86_64-linux-gnu.so"
    assert instructions.by_object(PROFILE.splitlines(keepends=True)) == {"/usr/bin/python3.11": 111, replay: 42}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/x/proxy/pump/lane.core-0123456789abcdef.cpython-312-x86_64-linux-gnu.so", "pump.lane"),
        ("/usr/bin/python3.11", "python"),
        ("/opt/lib/libpython3.12.so.1.0", "python"),
        ("/usr/lib/x86_64-linux-gnu/libc.so.6", "libc"),
        ("/lib/libc-2.31.so", "libc"),
        ("/usr/sbin/haproxy", "haproxy"),
    ],
)
def test_object_files_are_called_by_what_they_are(path: str, name: str) -> None:
    assert instructions.called(path) == name


def test_lines_say_the_most_first() -> None:
    sides = [Counter({"python": 1200, "pump.lane": 40, "libm": 0}), Counter({"libc": 7})]
    assert list(instructions.lines("floor", "ping=1", sides)) == [
        "floor, ping=1, proxy A: 1,240 instructions: python 1,200, pump.lane 40",
        "floor, ping=1, proxy B: 7 instructions: libc 7",
    ]


def test_a_slow_clock_and_waits_that_are_as_slow(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    library = slow_clock(tmp_path)
    say = "import time; print(time.monotonic())"
    before = time.monotonic()
    slow = {"LD_PRELOAD": str(library)}
    done = subprocess.run([sys.executable, "-c", say], env=slow, capture_output=True, check=True)
    assert before / 50 - 1 < float(done.stdout) < time.monotonic() / 50 + 1
    epoll_wait = ctypes.CDLL(str(library)).epoll_wait
    assert epoll_wait(-1, None, 1, 2**31 - 1) == -1  # no such descriptor: it returns at once
