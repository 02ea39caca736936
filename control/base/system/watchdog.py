"""systemd's watchdog (WatchdogSec= of the unit): who does not say in time that it lives is killed and started again."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping

import trio

from control.base.system.notify import notify

MICROSECONDS, PROCESS = "WATCHDOG_USEC", "WATCHDOG_PID"
OFF = f"{MICROSECONDS}=0"
"""Has systemd not watch the service any more (sd_notify(3))."""
BEATS = 3
"""How often within the time that systemd gives: half of it is the usual advice, and a busy machine may be late."""


def patience(environment: Mapping[str, str] = os.environ) -> float | None:
    """Seconds within which systemd wants to hear from this process; None: it does not watch it. Without WATCHDOG_PID
    any process is meant: so a successor is, which `handover.successor` starts without it.
    """
    text, process = environment.get(MICROSECONDS, ""), environment.get(PROCESS, "")
    if not (text.isascii() and text.isdecimal()) or process not in ("", str(os.getpid())):
        return None
    return int(text) / 1e6 or None


async def feed(turned: Callable[[], Awaitable[None]], seconds: float) -> None:
    """Tell systemd that the process lives, each time that it has `turned`, until cancelled.

    Args:
        turned: returns when what the process lives by has gone round once more; seconds: systemd's patience.
    """
    while True:
        await turned()
        notify("WATCHDOG=1")
        await trio.sleep(seconds / BEATS)


def watches(pid: int) -> bool:
    """Whether systemd counts this process, of which it has heard nothing yet, to the service of ours: whether it is in
    the same control groups. One that somebody started by hand is not, and has none of the variables.
    """
    try:
        with open(f"/proc/{pid}/cgroup", "rb") as its, open("/proc/self/cgroup", "rb") as ours:
            return its.read() == ours.read()
    except OSError:
        return False
