from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from proxy.mux.sizes import SLAB_SIZE
from tests.pump.rig import rig

PLAIN = """
import trio
from benchmarks import unretained
from proxy.pump import loop
from tests.benchmarks.test_unretained import conversation

loop.LINGER = 0
unretained.patch()
trio.run(conversation)
"""


async def conversation() -> None:
    async with rig(replay=2 * SLAB_SIZE) as joined:
        stream = await joined.stream()
        for _ in range(20):
            await stream.caller.send(bytes(100_000))
            await stream.service.read(100_000)
            assert joined.near.session.out.unacked <= SLAB_SIZE
        joined.near.ping()
        before = joined.near.session.out.sent
        assert joined.near.session.out.acked == before
        assert joined.far.session._acked == 0
        stream.caller.close()
        await stream.over()
        assert not joined.near.session.lingering


def test_nothing_is_kept_and_nothing_acknowledged() -> None:
    """In a process with the plain core: the methods of compiled modules cannot be exchanged."""
    done = subprocess.run(
        [sys.executable, "-c", PLAIN], cwd=Path(__file__).resolve().parents[2], env=os.environ | {"HOSTLANE_PURE": "1"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_it_is_the_command_hostlane() -> None:
    argv = [sys.executable, "-m", "benchmarks.unretained", "validate", "/nonexistent.yaml"]
    done = subprocess.run(argv, cwd=Path(__file__).resolve().parents[2], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.strip()) == (2, "/nonexistent.yaml: no such file")
