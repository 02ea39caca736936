from __future__ import annotations

from control.base.page.since import Since


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_since_when_is_what_is_known_or_when_it_was_here_first() -> None:
    clock = Clock()
    since = Since(clock)
    assert since.of([("host", None), ("service", 30.0)]) == [1000.0, 970.0]
    clock.now += 5
    assert since.of([("service", 35.0), ("host", None)]) == [970.0, 1000.0]
    assert since.of([("service", 1.0)]) == [970.0], "another failure of the same kind, in between"
    clock.now += 5
    assert since.of([("host", None)]) == [1010.0], "it was over"
    assert since.times == {"host": 1010.0}


def test_somebody_else_may_have_noticed_it_before() -> None:
    since = Since(Clock())
    assert since.of([("host", None), ("link", 2.0)], {"host": 900.0, "link": 990.0}) == [900.0, 990.0]
