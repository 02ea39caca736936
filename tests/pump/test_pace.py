"""Numbers that other numbers depend on."""

from __future__ import annotations

from proxy.mux.frames import HEADER_SIZE, MAX_DATA
from proxy.pump import pace


def test_few_are_fewer_than_most_and_a_probe_takes_them_all() -> None:
    assert pace.FEW_EVENTS < pace.MAX_EVENTS
    assert pace.PROBE & (pace.PROBE + 1) == 0, "a mask"


def test_nobody_waits_for_what_the_epoll_cannot_wait_for() -> None:
    """A whole number of milliseconds, and deferrable frames wait no longer than anything else."""
    assert 1 <= pace.LINGER_DEFERRED <= pace.LINGER


def test_a_wait_that_counts_as_short_could_have_been_looked_through() -> None:
    assert pace.LOOKING < pace.SHORT < pace.TAKEN < pace.PAUSE


def test_a_link_has_no_more_than_its_peer() -> None:
    assert pace.SLOW_FRAMES <= pace.PEER_FRAMES
    assert pace.SLICE <= HEADER_SIZE + MAX_DATA
