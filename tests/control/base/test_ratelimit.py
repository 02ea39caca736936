from __future__ import annotations

import pytest

from control.base.ratelimit import RateLimit, client_of


def test_a_rate_and_twice_as_many_at_once() -> None:
    limit = RateLimit(10, 20)
    assert [limit.allows("a", 0.0) for _ in range(21)] == [True] * 20 + [False]
    assert limit.allows("b", 0.0)
    assert limit.allows("a", 0.1)
    assert not limit.allows("a", 0.1)


def test_clients_do_not_disturb_each_other() -> None:
    limit = RateLimit(1.0, 2)
    assert [limit.allows("a", 0.0) for _ in range(3)] == [True, True, False]
    assert limit.allows("b", 0.0)
    assert limit.allows("a", 1.0)


def test_all_together() -> None:
    limit = RateLimit(1.0, 2, 1.0, 3)
    assert [limit.allows(client, 0.0) for client in "aabbcc"] == [True, True, True, False, False, False]


def test_who_is_refused_uses_up_nobody_elses_share() -> None:
    limit = RateLimit(1.0, 1, 1.0, 2)
    assert [limit.allows("a", 0.0) for _ in range(10)] == [True] + [False] * 9
    assert limit.allows("b", 0.0)


@pytest.mark.failure(19)
def test_memory_is_bounded() -> None:
    limit = RateLimit(1.0, 2, most=10)
    for number in range(1000):
        assert limit.allows(str(number), 0.0)
    assert len(limit) == 10


def test_who_has_been_quiet_is_forgotten() -> None:
    limit = RateLimit(1.0, 2)
    for number in range(5):
        limit.allows(str(number), 0.0)
    for moment in range(10, 15):
        limit.allows("x", float(moment))
    assert len(limit) == 1


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix", "unix"),
    ],
)
def test_whom_an_address_stands_for(address: str, client: str) -> None:
    found = client_of(address)
    assert found == client or (address.startswith("::ffff") and found.startswith("::ffff:"))
