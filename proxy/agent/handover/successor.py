"""Starting the process that takes this one's place, as a child of it: SIGUSR2. So it lives where this one does
(systemd's control group, network namespace, container), with the same environment and the same streams for its log.
"""

from __future__ import annotations

import subprocess
import sys

import structlog
import trio

log = structlog.get_logger()

OPTION = "--takeover"


def command() -> list[str]:
    """The command line of this process, and the option that makes it a successor. What is installed there by now is
    what will run.
    """
    words = list(sys.orig_argv)
    return words if OPTION in words else [*words, OPTION]


async def start(argv: list[str]) -> None:
    """Start it and wait until it has ended; it goes on when this is cancelled. That it cannot be started, or ends, is a
    line in the log.
    """
    try:
        process = await trio.lowlevel.open_process(argv, stdin=subprocess.DEVNULL)
    except OSError as error:
        log.error("successor cannot be started", command=argv, error=error.strerror)
        return
    log.info("successor started", pid=process.pid)
    code = await process.wait()
    log.error("successor ended", pid=process.pid, exit_code=code)
