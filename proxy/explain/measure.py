"""Round trips of the parts of a way that can be measured from here. Times are milliseconds, each a median."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from time import perf_counter

from control.base.reading.addresses import UNIX_PATH_BYTES
from proxy.check.readers import files
from proxy.check.readers.echo import open_echo
from proxy.check.report import Unchecked
from proxy.explain.account import UnixHop
from proxy.explain.echo import BYTES

MESSAGES, CONNECTIONS, ECHOES = 2000, 200, 20
"""Enough for a median that the scheduler does not move; together a tenth of a second."""
_SMALL = 128
_PATIENCE_S = 10.0


def unix_hop(directory: str) -> UnixHop | Unchecked:
    """Connect and round trip over a Unix socket in `directory`, measured with a listener that is a process of its own.

    If `directory` is closed to us, or its path too long for one more name, the socket is in a temporary directory.
    """
    what = f"a Unix socket in {directory}"
    try:
        with _listening(directory) as path:
            connects = [_connect(path) for _ in range(CONNECTIONS)]
            trips = _round_trips(path)
            return UnixHop(
                directory=os.path.dirname(path),
                connect_ms=statistics.median(connects) * 1000,
                round_trip_ms=statistics.median(trips) * 1000,
            )
    except OSError as error:
        return files.unseen(what, error)


def echo_ms(address: str, device: str = "") -> float | Unchecked:
    """Median round trip to a machine by ICMP echo, which its kernel answers; ``device``: the interface for it."""
    what = f"the round trip to {address}"

    def bind(sock: socket.socket, address: str) -> None:
        with contextlib.suppress(OSError):
            if device:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode() + b"\0")

    echo = open_echo(address, bind)
    if isinstance(echo, Unchecked):
        return Unchecked(what, echo.why)
    trips = []
    with echo:
        try:
            for _ in range(ECHOES):
                began = perf_counter()
                if echo.ask(_SMALL) is not True:
                    return Unchecked(what, "it answers no echo requests")
                trips.append(perf_counter() - began)
        except OSError as error:
            return files.unseen(what, error)
    return statistics.median(trips) * 1000


@contextlib.contextmanager
def _listening(directory: str) -> Iterator[str]:
    """The path of a socket behind which a process sends back whatever comes. Raises OSError."""
    with contextlib.ExitStack() as stack:
        path = f"{directory}/.explain-{secrets.token_hex(4)}"
        if not os.access(directory, os.W_OK | os.X_OK) or len(os.fsencode(path)) > UNIX_PATH_BYTES:
            path = stack.enter_context(tempfile.TemporaryDirectory(prefix="hostlane-")) + "/explain"
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(path)
        stack.callback(os.unlink, path)
        listener.listen()
        descriptor = listener.fileno()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "proxy.explain.echo", str(descriptor)],
            stdin=subprocess.PIPE,
            pass_fds=[descriptor],
        )
        # `communicate` closes its standard input, which ends it.
        stack.callback(process.communicate)
        yield path


def _connect(path: str) -> float:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_PATIENCE_S)
        began = perf_counter()
        client.connect(path)
        seconds = perf_counter() - began
        # Have it accepted before the next connect: waiting for a full queue would be the listener's time.
        client.sendall(b"x")
        client.recv(1)
        return seconds


def _round_trips(path: str) -> Iterator[float]:
    message = bytes(BYTES)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_PATIENCE_S)
        client.connect(path)
        client.sendall(message)
        client.recv(BYTES, socket.MSG_WAITALL)
        for _ in range(MESSAGES):
            began = perf_counter()
            client.sendall(message)
            client.recv(BYTES, socket.MSG_WAITALL)
            yield perf_counter() - began
