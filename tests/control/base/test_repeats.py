from __future__ import annotations

from typing import Any

import pytest

from control.base.repeats import MOST_KINDS, WINDOW, Repeats

NEVER = float("inf")
SHARE = MOST_KINDS // 2
"""Kinds of one event."""


def event(number: int = 0, **fields: Any) -> dict[str, Any]:
    return {"level": "warning", "event": "failed", "number": number, **fields}


@pytest.mark.failure("27")
def test_the_first_is_news_and_the_rest_a_number() -> None:
    repeats = Repeats()
    assert [repeats.is_news("failed", ("redis",), event(number), 100.0 + number) for number in range(28)] == [
        True,
        *[False] * 27,
    ]
    assert repeats.next == 100 + WINDOW
    assert repeats.due(100 + WINDOW - 0.1) == []
    assert repeats.due(100 + WINDOW) == [event(27, more=27, in_s=60.0)]
    assert (repeats.next, repeats.due(100 + WINDOW)) == (NEVER, [])


def test_as_long_as_it_goes_on_it_is_one_line_a_window() -> None:
    repeats, told = Repeats(), []
    for tenth in range(6000):
        now = tenth / 10
        if repeats.is_news("failed", (), event(tenth), now):
            told.append((now, 1))
        told += [(now, each["more"]) for each in repeats.due(now)]
    assert [more for _, more in told[:2]] == [1, 600]
    assert len(told) == 600 / WINDOW
    assert sum(more for _, more in [*told, *((0, each["more"]) for each in repeats.rest(600))]) == 6000


@pytest.mark.parametrize("pause", [WINDOW, 10 * WINDOW])
def test_after_a_quiet_window_it_is_news_again(pause: float) -> None:
    repeats = Repeats()
    assert repeats.is_news("failed", ("redis",), event(), 0)
    assert not repeats.is_news("failed", ("redis",), event(), 1)
    assert repeats.due(WINDOW)
    assert not repeats.is_news("failed", ("redis",), event(), 2 * WINDOW - 1), "the line that told of one is no quiet"
    assert repeats.due(2 * WINDOW)
    assert repeats.is_news("failed", ("redis",), event(), 2 * WINDOW + pause)


def test_kinds_are_told_apart() -> None:
    repeats = Repeats()
    kinds = [
        ("failed", ("redis", "a")),
        ("failed", ("redis", "b")),
        ("failed", ("web", "a")),
        ("refused", ("redis", "a")),
    ]
    for _ in range(2):
        for position, (name, kind) in enumerate(kinds):
            repeats.is_news(name, kind, event(position), position)
    assert [(each["number"], each["more"], each["in_s"]) for each in repeats.due(WINDOW + 1)] == [
        (0, 1, WINDOW + 1),
        (1, 1, WINDOW),
    ]
    assert repeats.next == WINDOW + 2


@pytest.mark.failure("27")
def test_who_makes_kinds_up_gets_a_bounded_number_of_lines() -> None:
    repeats = Repeats()
    news = [repeats.is_news("failed", (f"s{number}",), event(number), 0) for number in range(10_000)]
    assert sum(news) == SHARE + 1
    assert repeats.due(WINDOW) == [
        {"level": "warning", "event": "failed", "various": True, "more": 10_000 - SHARE - 1, "in_s": 60.0}
    ]
    assert repeats.is_news("refused", ("s1",), event(), 0), "what has another name is news"
    # All have been quiet for a while but those that are counted together.
    again = [repeats.is_news("failed", (f"t{number}",), event(number), WINDOW + 1) for number in range(10_000)]
    assert sum(again) == SHARE, "the rest was counted together a moment ago"


@pytest.mark.failure("27")
@pytest.mark.parametrize("late", [0.0, 1.0, 10 * WINDOW])
def test_one_noisy_event_leaves_others_their_room(late: float) -> None:
    """Whoever comes later still has its kinds told apart, as long as the first goes on."""
    repeats = Repeats()

    def noise(now: float) -> None:
        for number in range(2 * MOST_KINDS):
            repeats.is_news("refused", (number,), event(number), now)

    noise(0)
    for now in range(1, int(late) + 1, 30):
        noise(now)
        repeats.due(now)
    services = ["redis", "web", "mail"]
    assert all(repeats.is_news("failed", (service,), event(), late + 1) for service in services)
    assert all(repeats.is_news("lost", (service,), event(), late + 1) for service in services)
    for number, service in enumerate(services):
        repeats.is_news("failed", (service,), event(number), late + 2)
    told = [each for each in repeats.rest(late + 3) if each["more"] == 1 and "various" not in each]
    assert [each["number"] for each in told[-3:]] == [0, 1, 2]


def test_many_noisy_events_are_bounded_together() -> None:
    repeats = Repeats()
    lines = sum(
        repeats.is_news(f"event {name}", (number,), event(number), 0) for number in range(1000) for name in range(33)
    )
    assert MOST_KINDS // 2 < lines <= MOST_KINDS + 33
    assert len(repeats.rest(1)) <= MOST_KINDS + 33


def test_a_kind_that_is_known_keeps_its_place_in_a_full_table() -> None:
    repeats = Repeats()
    for number in range(2 * MOST_KINDS):
        repeats.is_news("failed", (number,), event(number), 0)
    assert not repeats.is_news("failed", (1,), event(1), 1)
    assert [each["number"] for each in repeats.rest(2) if "various" not in each] == [1]


def test_the_rest_is_told_before_its_time() -> None:
    repeats = Repeats()
    for number in range(3):
        repeats.is_news("failed", (), event(number), number)
    assert repeats.rest(12.34) == [event(2, more=2, in_s=12.3)]
    assert (repeats.rest(13), repeats.next) == ([], NEVER)
