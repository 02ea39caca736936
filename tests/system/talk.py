"""Verified traffic: callers that talk without pause and check every byte, and processes that can be killed in it."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Self

from proxy.demo.lab import LabHost
from proxy.pump.lastwords import untaken
from tests.tools.sockets import eventually, parse, read_exactly, read_to_end

SIZE = 200


def message(caller: int, number: int, size: int = SIZE) -> bytes:
    """Bytes that no other caller and no other turn sends."""
    stem = f"{caller}/{number};".encode()
    return (stem * (size // len(stem) + 1))[:size]


class Caller(threading.Thread):
    """Talks to an echo server until the connection ends or `stop` is called, which closes it.

    Attributes:
        rounds: messages that came back, each as it was sent.
        ending: ``stopped``; what the proxy made of the connection: ``end`` or ``reset``; or ``wrong bytes``.
    """

    def __init__(self, number: int, sock: socket.socket) -> None:
        super().__init__(name=f"caller {number}", daemon=True)
        self.number = number
        self.rounds = 0
        self.ending = ""
        self._sock = sock
        self._stopping = False
        self.start()

    def run(self) -> None:
        with self._sock:
            while not self.ending:
                self.ending = self._round()

    def _round(self) -> str:
        if self._stopping:
            return "stopped"
        wanted = message(self.number, self.rounds)
        got = b""
        try:
            self._sock.sendall(wanted)
            while len(got) < len(wanted):
                piece = self._sock.recv(65536)
                if not piece:
                    return "end" if wanted.startswith(got) else "wrong bytes"
                got += piece
        except (ConnectionResetError, BrokenPipeError) as error:
            return "end" if isinstance(error, BrokenPipeError) else "reset"
        self.rounds += got == wanted
        return "" if got == wanted else "wrong bytes"

    def stop(self) -> None:
        """Close after the message under way."""
        self._stopping = True


class Callers(list[Caller]):
    """Several callers; leaving the block stops them and waits for their ends."""

    def all_talk(self, rounds: int = 20) -> None:
        """Wait until each has done some more rounds."""
        goals = [caller.rounds + rounds for caller in self]
        eventually(
            lambda: all(caller.rounds >= goal for caller, goal in zip(self, goals, strict=True)),
            f"{rounds} more rounds for each caller",
        )

    def endings(self) -> set[str]:
        """How they ended, once all have: no caller may be left hanging."""
        eventually(lambda: not any(caller.is_alive() for caller in self), "the end of every caller")
        return {caller.ending for caller in self}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for caller in self:
            caller.stop()
        for caller in self:
            caller.join()


def last_words(closer: socket.socket, writer: socket.socket, words: bytes) -> None:
    """`closer` says `words` and closes with bytes unread; `writer`, which goes on writing, reads every one of them."""

    def speak() -> None:
        read_exactly(closer, 1000)
        closer.sendall(words)
        # A TCP socket that closes like this drops what it has not handed over, with and without a proxy.
        eventually(lambda: closer.family == socket.AF_UNIX or not untaken(closer), "the words are on their way")
        closer.close()

    def write() -> None:
        with suppress(ConnectionError):
            while True:
                writer.sendall(b"x" * SIZE)

    threads = [threading.Thread(target=run) for run in (speak, write)]
    for thread in threads:
        thread.start()
    received = read_to_end(writer).received
    for thread in threads:
        thread.join()
    assert received == words


_ECHOING_CLIENT = """
sock.connect(target)
sock.sendall(b"x" * 1000)
"""
_TALKING_SERVER = """
if family == socket.AF_INET:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sock.bind(target)
sock.listen()
print("listening", flush=True)
sock, _ = sock.accept()
"""
_PROGRAM = """
import ast, select, socket, sys
family, target = ast.literal_eval(sys.argv[1])
sock = socket.socket(family)
{begin}
select.select([sock], [], [])
print("unread", flush=True)
select.select([], [], [])
"""


class Victim:
    """A process with one connection, to be killed while it has bytes unread: what a crash in the middle of work is.

    It is the client of a service that speaks, or (``serve=True``) a server of a caller that does.
    """

    def __init__(self, address: str, *, host: LabHost, serve: bool) -> None:
        family, target = parse(address)
        program = _PROGRAM.format(begin=_TALKING_SERVER if serve else _ECHOING_CLIENT)
        argv = [sys.executable, "-c", program, repr((int(family), target))]
        self._process = host.popen(argv, stdout=subprocess.PIPE, text=True)
        if serve:
            self._expect("listening")

    def has_unread_bytes(self) -> None:
        """Wait until it has."""
        self._expect("unread")

    def _expect(self, line: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == f"{line}\n", "it failed, see above"

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
