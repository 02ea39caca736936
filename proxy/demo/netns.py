"""Network namespaces through iproute2: make, enter, empty and remove them.

Everything here is synchronous and needs root. Commands run in a session of their own, so that Ctrl-C at a terminal
interrupts the caller and never an ``ip`` half-way through its work.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence

from proxy.errors import HostlaneError
from proxy.netdev.observe.namespaces import switch

PREFIX = "hostlane"
"""Namespaces are named ``hostlane-PID-SERIAL-ROLE``, PID being the process that made them."""

_NAME = re.compile(rf"{PREFIX}-(\d+)-\d+-[\w-]+")


class LabError(HostlaneError):
    """A command that builds the lab failed; the text holds the command and what it said."""


def run(argv: Sequence[str], stdin: str | None = None) -> str:
    """Run a short command and return its standard output. Raises LabError when it fails or does not exist."""
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, start_new_session=True, check=False)
    except FileNotFoundError:
        raise LabError(f"{argv[0]}: not installed") from None
    if done.returncode != 0:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise LabError(f"{' '.join(argv)}: {said}")
    return done.stdout


def inside(netns: str, argv: Sequence[str]) -> list[str]:
    """The command line that runs ``argv`` in a namespace; ``ip`` becomes the command, pid and all."""
    return ["ip", "netns", "exec", netns, *argv]


def add(netns: str) -> None:
    """Make a namespace with its loopback up."""
    run(["ip", "netns", "add", netns])
    run(["ip", "-n", netns, "link", "set", "lo", "up"])


def pids(netns: str) -> list[int]:
    """The processes in a namespace; none if it does not exist."""
    try:
        return [int(word) for word in run(["ip", "netns", "pids", netns]).split()]
    except LabError:
        return []


def delete(netns: str, patience: float = 5.0) -> None:
    """Kill whatever still runs in a namespace, then remove it with all its interfaces.

    Does nothing if there is none. A process that does not die within ``patience`` seconds is left behind: the namespace
    then lives, nameless, for as long as it does.
    """
    deadline = time.monotonic() + patience
    while (left := pids(netns)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    with contextlib.suppress(LabError):
        run(["ip", "netns", "delete", netns])


def abandoned() -> list[str]:
    """Namespaces whose maker was killed before it could remove them."""
    lines = run(["ip", "netns", "list"]).splitlines()
    found = [match for line in lines if (match := _NAME.match(line))]
    return [match.group() for match in found if not os.path.exists(f"/proc/{match.group(1)}")]


@contextlib.contextmanager
def entered(netns: str) -> Iterator[None]:
    """This thread is in the namespace for the length of the block: sockets made in it belong there for ever.

    Only for blocks that neither await nor start threads. Raises OSError if the namespace does not exist.
    """
    with open("/proc/thread-self/ns/net", "rb") as home, open(f"/run/netns/{netns}", "rb") as there:
        switch(there.fileno())
        try:
            yield
        finally:
            switch(home.fileno())


def make_socket(netns: str, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A socket that lives in the namespace, made without starting a process there. The caller closes it."""
    with entered(netns):
        return socket.socket(family, kind)
