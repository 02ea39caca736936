"""Names, as long as there is room for them, and the sum of all others."""

from __future__ import annotations

from collections import Counter

from proxy.pump.seriesbudget import FORGET, Named, SeriesBudget, everybody


def test_who_finds_no_room_is_one_of_the_others() -> None:
    budget = SeriesBudget(20)
    named: Named[str, Counter[str]] = Named(budget, Counter, 10, lambda name: "other")
    for name in "abcd":
        named(name)["x"] += 1
    assert list(named.all) == ["a", "b", "other"]
    assert named("c") is named("d") is named("other")
    assert named("other")["x"] == 2
    assert budget.used == 20


def test_what_left_the_map_is_dropped_in_time_and_then_there_is_room() -> None:
    now = 0.0
    budget = SeriesBudget(20)
    named: Named[str, list[int]] = Named(budget, list, 10, lambda name: "other", lambda: now)
    for name in "abc":
        named(name).append(1)
    for now, known, left in [
        (1.0, "abc", "ab"),
        (2.0, "bc", "ab"),
        (FORGET + 1, "bc", "ab"),
        (FORGET + 1.5, "abc", "ab"),  # it is back
        (FORGET + 2, "bc", "ab"),
        (2 * FORGET + 2, "bc", "b"),
    ]:
        for _ in named.forget(everybody(known, "other")):
            pass
        assert "".join(name for name in named.all if name != "other") == left, now
    assert budget.used == 10
    named("d")
    assert list(named.all) == ["b", "other", "d"]
    assert named.label("c") == "other"  # its numbers are part of a sum that must not go down
