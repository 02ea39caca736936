"""Starting the process that takes this one's place, on SIGUSR2. It is a child of this one: in the same systemd control
group, network namespace and container, with the same environment, stdout and stderr.
"""

from __future__ import annotations

import os
import subprocess
import sys

import structlog
import trio

from control.base.system.watchdog import PROCESS

log = structlog.get_logger()

OPTION = "--takeover"


def command() -> list[str]:
    """The command line of this process, with the option that makes it a successor. It runs the version of the program
    that is installed by now.
    """
    words = list(sys.orig_argv)
    return words if OPTION in words else [*words, OPTION]


async def start(argv: list[str]) -> None:
    """Start the successor and wait until it has ended. Logs an error if it cannot be started, or when it ends. If this
    is cancelled, the successor goes on.
    """
    # systemd's watchdog means this process by its number; it watches the successor from the takeover on.
    environment = {name: value for name, value in os.environ.items() if name != PROCESS}
    try:
        process = await trio.lowlevel.open_process(argv, stdin=subprocess.DEVNULL, env=environment)
    except OSError as error:
        log.error("successor cannot be started", command=argv, error=error.strerror)
        return
    log.info("successor started", pid=process.pid)
    code = await process.wait()
    log.error("successor ended", pid=process.pid, exit_code=code)
