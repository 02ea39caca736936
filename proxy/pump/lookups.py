"""Asking for the addresses of host names, in threads, because the C library's getaddrinfo blocks: for half a minute and
more where a name server does not answer.

Trio would do it in the threads that it keeps for everything else, so that enough names without an answer would keep
other work waiting, such as reading the configuration again. Here the threads are others, a name has one at most, and
whoever asks for it meanwhile gets the same answer. `use` makes trio ask here too: for peers, for control servers.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from functools import partial
from typing import Any

import outcome
import structlog
import trio

from proxy.pump.sourceport import no_thread

log = structlog.get_logger()

THREADS = 64
"""Look-ups at a time; more wait for their turn. A blocked thread takes some 30 KiB. Each name has one at most, so this
is the number of names that must be without an answer before any other has to wait."""

Question = tuple[Any, ...]
"""The arguments of getaddrinfo."""
Found = list[tuple[Any, ...]]
"""What it returns."""
Answer = Found | OSError
Tell = Callable[[Answer], None]
"""Called once, in the trio thread, with what was found or why nothing was."""


class LookUps(trio.abc.HostnameResolver):
    """Owns the threads; those under way when trio ends finish by themselves, and nobody is told.

    Args:
        ask: blocks until it knows, as `socket.getaddrinfo`. Runs in a thread.
    """

    def __init__(self, ask: Callable[..., Found] = socket.getaddrinfo) -> None:
        self._ask = ask
        self._asked: dict[Question, list[Tell]] = {}
        self._queue: deque[Question] = deque()
        self.running = 0

    def use(self) -> None:
        """Have trio's own getaddrinfo ask here, for the rest of this run of trio."""
        trio.socket.set_custom_hostname_resolver(self)

    def start(self, question: Question, tell: Tell) -> None:
        """Find the answer; `tell` is called with it, never before this returns."""
        if (tells := self._asked.get(question)) is not None:
            tells.append(tell)
            return
        self._asked[question] = [tell]
        self._queue.append(question)
        self._next()

    def _next(self) -> None:
        while self._queue and self.running < THREADS:
            self.running += 1
            question = self._queue.popleft()
            token = trio.lowlevel.current_trio_token()
            deliver = partial(self._deliver, token, question)
            try:
                trio.lowlevel.start_thread_soon(partial(self._ask, *question), deliver, f"look-up of {question[0]!r}")
            except RuntimeError:
                token.run_sync_soon(self._answered, question, outcome.Error(no_thread()))

    def _deliver(self, token: trio.lowlevel.TrioToken, question: Question, answer: outcome.Outcome[Found]) -> None:
        """Runs in the thread."""
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(self._answered, question, answer)

    def _answered(self, question: Question, came: outcome.Outcome[Found]) -> None:
        self.running -= 1
        self._next()
        answer = _plain(came)
        for tell in self._asked.pop(question):
            try:
                tell(answer)
            except Exception:  # costs whoever asked, not the proxy: nothing is above this but trio
                log.exception("unexpected error with an answer of the name service", name=question[0])

    async def getaddrinfo(
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> Found:
        """As `socket.getaddrinfo` (HostnameResolver). If it is cancelled, the thread goes on for others who ask."""
        answers: list[Answer] = []
        told = trio.Event()

        def tell(answer: Answer) -> None:
            answers.append(answer)
            told.set()

        self.start((host, port, family, type, proto, flags), tell)
        await told.wait()
        if isinstance(answers[0], OSError):
            raise copy(answers[0])  # each who asked gets an exception of its own, with its own traceback
        return answers[0]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        """As `socket.getnameinfo` (HostnameResolver); nobody here asks for names of addresses."""
        return await trio.to_thread.run_sync(socket.getnameinfo, sockaddr, flags, abandon_on_cancel=True)


def _plain(came: outcome.Outcome[Found]) -> Answer:
    try:
        return came.unwrap()
    except OSError as error:
        return error
    except Exception as error:  # such as UnicodeError, for a name that cannot be one
        return OSError(str(error))
