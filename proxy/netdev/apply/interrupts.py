"""Ctrl-C between two steps, and never in the middle of one: what half a step has done nobody could take back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def held_back() -> Iterator[Callable[[], None]]:
    """Hold SIGINT back in the block. Calling what this yields runs the handler of a signal that has come meanwhile (it
    raises KeyboardInterrupt, as a rule); so does the end of the block.

    Only the main thread gets signals; in another one, and where SIGINT is ignored, nothing changes.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield lambda: None
        return
    waiting = False

    def note(number: int, frame: object) -> None:
        nonlocal waiting
        waiting = True

    def heed() -> None:
        nonlocal waiting
        if waiting:
            waiting = False
            before(signal.SIGINT, None)

    signal.signal(signal.SIGINT, note)
    try:
        yield heed
    finally:
        signal.signal(signal.SIGINT, before)
    heed()
