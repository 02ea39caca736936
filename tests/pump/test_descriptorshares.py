"""How many descriptors are for whom."""

from __future__ import annotations

import pytest

from proxy.pump.descriptorshares import ALPHA, DescriptorShares

pytestmark = pytest.mark.failure("21b-b")


@pytest.mark.parametrize(
    ("limit", "reserve"), [(20, 10), (64, 16), (1024, 64), (4096, 256), (1_048_576, 256), (1 << 62, 256)]
)
def test_the_reserve(limit: int, reserve: int) -> None:
    shares = DescriptorShares(limit)
    assert shares.ceiling == limit - reserve
    assert 0 < shares.scarce <= shares.ceiling // 2
    assert shares.share(shares.ceiling) == shares.share(limit) == 0


@pytest.mark.parametrize("greedy", [1, 2, 5, 20])
def test_those_who_take_all_they_may_leave_some_to_the_next(greedy: int) -> None:
    """Each in turn takes one more as long as it may; the lowest free descriptor is as many as are in use."""
    shares = DescriptorShares(20_000)
    held = [0] * greedy
    for _ in range(shares.ceiling):
        for number in range(greedy):
            if held[number] <= shares.share(sum(held)):
                held[number] += 1
    left = shares.ceiling - sum(held)
    assert left >= shares.ceiling // (1 + ALPHA * greedy) - greedy
    assert max(held) - min(held) <= 1
    assert shares.share(sum(held)) >= 4 * (left - 1) > 0, "whoever has none yet gets some"
