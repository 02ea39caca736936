from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from proxy.netdev.apply.interrupts import held_back


@pytest.fixture(autouse=True)
def usual() -> Iterator[None]:
    """As in a terminal, whatever this process was started with."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_it_comes_where_it_is_heeded() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), held_back() as heed:
        heed()
        signal.raise_signal(signal.SIGINT)
        done.append("a step")
        heed()
        done.append("another")
    assert done == ["a step"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_one_that_was_not_heeded_comes_in_the_end() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt):
        with held_back():
            signal.raise_signal(signal.SIGINT)
            done.append("all")
        done.append("more")
    assert done == ["all"]


def test_an_error_comes_first() -> None:
    with pytest.raises(LookupError), held_back():
        signal.raise_signal(signal.SIGINT)
        raise LookupError


def test_another_handler_stays_in_charge() -> None:
    seen = []
    signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    with held_back() as heed:
        signal.raise_signal(signal.SIGINT)
        assert not seen
        heed()
        assert seen == [signal.SIGINT]
        heed()
    assert seen == [signal.SIGINT]


def test_where_it_is_ignored_and_in_another_thread() -> None:
    def elsewhere() -> None:
        with held_back() as heed:
            heed()
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with held_back() as heed:
        signal.raise_signal(signal.SIGINT)
        heed()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
