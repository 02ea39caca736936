from __future__ import annotations

import pytest
import trio

from proxy.links import passing
from proxy.links.passing import NoEarlierProcess, PassedLinks
from tests.links.wire import tcp_pair
from tests.tools.sockets import fds_since, open_fds

pytestmark = pytest.mark.failure("24")


async def test_they_come_in_order_and_those_that_nobody_takes_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_fds()
    monkeypatch.setattr(passing, "MOST", 2)
    passed = PassedLinks()
    pairs = [tcp_pair() for _ in range(3)]
    for one, _ in pairs:
        passed.put(one)
    assert pairs[2][0].fileno() < 0, "a flood"
    assert await passed.take() is pairs[0][0]
    passed.close()
    passed.close()
    assert pairs[1][0].fileno() < 0
    passed.put(pairs[1][1])
    assert pairs[1][1].fileno() < 0, "too late"
    for one, other in pairs:
        one.close()
        other.close()
    assert not fds_since(before)


async def test_nothing_comes_after_the_end(autojump_clock: trio.testing.MockClock) -> None:
    passed = PassedLinks()
    passed.close()
    with trio.move_on_after(1000) as patience:
        await passed.take()
    assert patience.cancelled_caught


def test_without_an_earlier_process_nothing_is_passed() -> None:
    one, other = tcp_pair()
    with one, other:
        assert not NoEarlierProcess().pass_on("", one)
        assert one.fileno() >= 0
