"""A burst of new connections; why none are accepted at times is in test_listener.py."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import closing
from math import inf

import pytest

from proxy.pump.accepting import Accepting
from proxy.pump.descriptor import Descriptor
from proxy.pump.opening import MOST, TURNS
from proxy.pump.openings import OpeningWindow
from proxy.pump.options import LocalSocket
from tests.pump.rig import Host
from tests.pump.test_openings import Peer

BURST = MOST // TURNS


class Told(Accepting):
    """Keeps what it accepts, and why it does not."""

    def __init__(self, host: Host, fd: int) -> None:
        self.owners: list[LocalSocket | Descriptor] = []
        self.exceeding: list[int] = []
        self.too_many = False
        self.codes: list[int] = []
        self.waits = 0
        super().__init__(host.pump, fd, self.owners.append, OpeningWindow())

    def _exceeds(self, descriptor: int) -> bool:
        self.exceeding.append(descriptor)
        return self.too_many

    def _await_answers(self) -> None:
        self.waits += 1

    def _pause(self, code: int) -> None:
        self.codes.append(code)


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("")  # an abstract name that the kernel picks
        sock.listen(1000)
        sock.setblocking(False)
        yield sock


@pytest.fixture
def callers(listening: socket.socket) -> Iterator[list[socket.socket]]:
    made = [socket.socket(socket.AF_UNIX) for _ in range(BURST + 2)]
    for each in made:
        each.connect(listening.getsockname())
    yield made
    for each in made:
        each.close()


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.pump.shut_down()


@pytest.fixture
def told(host: Host, listening: socket.socket) -> Iterator[Told]:
    told = Told(host, listening.fileno())
    yield told
    for owner in told.owners:
        owner.close()


def test_a_burst_and_then_the_rest(told: Told, callers: list[socket.socket]) -> None:
    told.ready(1)
    assert (len(told.owners), told._short_at > -inf) == (BURST, True)
    assert not any(os.get_blocking(owner.fileno()) for owner in told.owners)
    told.ready(1)
    assert len(told.owners) == len(callers)


def test_nobody_waits(told: Told) -> None:
    told._failed, told._said = errno.EMFILE, True
    told.ready(1)
    assert (told.owners, told._failed, told._said, told._short_at) == ([], 0, False, -inf)


def test_descriptors_that_are_scarce_or_used_up(told: Told, callers: list[socket.socket]) -> None:
    told._pump.descriptors.scarce = 0
    told.too_many = True
    told.ready(1)
    assert told.exceeding == [told.owners[0].fileno()]
    told._pump.descriptors.used_up = True
    told.ready(1)
    assert (told.exceeding[1:], len(told.owners)) == ([-1], 1)


def test_a_window_that_is_full(told: Told, callers: list[socket.socket]) -> None:
    peer = Peer()
    for _ in range(MOST):
        told.window.add(peer.under_way)
    told.ready(1)
    assert (told.waits, told.owners) == (1, [])


def test_what_the_machine_cannot(host: Host) -> None:
    with closing(Descriptor(os.open("/dev/null", os.O_RDONLY))) as file:
        told = Told(host, file.fileno())
        told.ready(1)
        assert told.codes == [errno.ENOTSOCK]


def test_who_accepts_says_what_else_there_is(host: Host) -> None:
    bare = Accepting(host.pump, 0, lambda owner: None, OpeningWindow())
    for ask in (lambda: bare._exceeds(1), bare._await_answers, lambda: bare._pause(1)):
        with pytest.raises(NotImplementedError):
            ask()
