"""Which windows there are."""

from __future__ import annotations

import pytest

from proxy.pump.openingwindows import OpeningWindows
from tests.pump.test_openings import Call, Peer

pytestmark = pytest.mark.failure("21b-c")


def test_calls_that_lose_their_link_are_in_nobodys_way() -> None:
    windows, one, other = OpeningWindows(), Peer(), Peer()
    mine, theirs = Call(windows.of("one"), one), Call(windows.of("one"), other)
    Call(windows.of("another"), one)
    windows.link_lost(one)
    assert (one.under_way.count, other.under_way.count) == (0, 1)
    later = Call(windows.of("one"), one)
    mine.answered()
    assert (one.under_way.count, other.under_way.count, windows.of("one").count) == (1, 1, 2), "late: of those before"
    later.answered()
    theirs.answered()
    assert (one.under_way.count, other.under_way.count, windows.of("one").count) == (0, 0, 0)


def test_an_upstream_that_was_removed_and_comes_back() -> None:
    windows, peer = OpeningWindows(), Peer()
    window = windows.of("one")
    windows.keep({"another"})
    assert windows.of("one") is not window
    window = windows.of("one")
    Call(window, peer)
    windows.keep({"another"})
    assert windows.of("one") is window, "a call is in it"
    windows.link_lost(peer)
    assert peer.under_way.count == 0
