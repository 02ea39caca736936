"""Commands as somebody types them: on a terminal of a width, or in a pipe."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shlex
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from typing import NamedTuple

from proxy.demo.mesh import HOSTLANE
from tests.tools.sockets import PATIENCE

LOCALE_C = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LEFT_OUT = ("COLUMNS", "LINES", "NO_COLOR", "TTY_COMPATIBLE", "FORCE_COLOR", "TERM", "PYTHONUTF8", "PYTHONIOENCODING")
CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[()][AB0]|\x1b[=>78]")

PLACED = re.compile(r"\x1b\[[\d;]*H")


class Done(NamedTuple):
    """`out`: on a terminal all that it got, with ``\\n`` as ends of lines; in a pipe what came through that."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """What one sees of it: without what moves the cursor or colours it. Where it goes to a place, a line
        begins."""
        return CONTROL.sub("", PLACED.sub("\n", self.out)).splitlines()


def piped(arguments: Sequence[str], *, encoding: str = "", **environment: str) -> Done:
    """In a pipe. Raises UnicodeDecodeError if it is not of the encoding; default: ASCII where the locale is C."""
    done = subprocess.run(
        [*HOSTLANE, *arguments], stdin=subprocess.DEVNULL, capture_output=True, env=_environment(environment),
        timeout=4 * PATIENCE, check=False,
    )  # fmt: skip
    encoding = encoding or ("ascii" if "LC_ALL" in environment else "utf-8")
    return Done(done.returncode, done.stdout.decode(encoding), done.stderr.decode(encoding))


def through_shell(line: str, **environment: str) -> Done:
    """A line of a shell in which ``hostlane`` is the command of the installation that runs now. `code` is that of the
    last one in a pipe that is not 0.
    """
    ours = f'hostlane() {{ {shlex.join(HOSTLANE)} "$@"; }}'
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{ours}\n{line}"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        env=_environment(environment), timeout=4 * PATIENCE, check=False,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


def on_terminal(arguments: Sequence[str], columns: int, ended_by: str = "", **environment: str) -> Done:
    """On a terminal of so many columns. `ended_by`: what is typed once the command has shown something and wants to go
    on, such as Ctrl-C.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [*HOSTLANE, *arguments], stdin=slave, stdout=slave, stderr=slave, env=_environment(environment),
        start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(slave)
    seen, limit = bytearray(), time.monotonic() + 4 * PATIENCE
    try:
        while True:
            assert select.select([master], [], [], max(0.0, limit - time.monotonic()))[0], (arguments, seen)
            try:
                part = os.read(master, 65536)
            except OSError:  # EIO: nobody has the terminal any more
                break
            if not part:
                break
            seen += part
            if ended_by and len(seen.splitlines()) > 1:
                os.write(master, ended_by.encode())
                ended_by = ""
        code = process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()
        os.close(master)
    encoding = "ascii" if "LC_ALL" in environment else "utf-8"
    return Done(code, seen.decode(encoding).replace("\r\n", "\n"), "")


def _environment(more: dict[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in LEFT_OUT}
    return inherited | {"TERM": "xterm-256color"} | more
