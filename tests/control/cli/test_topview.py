from __future__ import annotations

import pytest
from msgspec.structs import replace

from control.cli.topview import Look, TopState, heading, table
from tests.control.cli.test_longvalues import LINK, STATUS, STREAM

ONE = replace(STREAM, bytes_sent=1000, uid=1)
OTHER = replace(STREAM, id="x", service="web", bytes_sent=5000, age_s=9.0, state="waiting", uid=2)
BEFORE = Look(10.0, replace(STATUS, streams_opened=5), [LINK], [ONE, OTHER])
NOW = Look(
    12.0,
    replace(STATUS, streams_opened=25),
    [replace(LINK, bytes_sent=LINK.bytes_sent + 2048)],
    [replace(ONE, bytes_sent=3048), OTHER],
)


def rows(state: TopState, before: Look | None = BEFORE) -> list[list[str]]:
    return [list(row) for row in table(state, NOW, before).rows]


def keys(text: str) -> TopState:
    state = TopState()
    for key in text:
        state = state.key(key)
    return state


def test_rates_come_of_two_looks() -> None:
    by_service = {row[0]: row[4:] for row in rows(TopState())}
    assert by_service == {
        "redis": ["1", "1.0 KiB", "0 B", "0", "1.0s"],
        "web": ["1", "0 B", "0 B", "1", "9.0s"],
    }
    assert rows(TopState(), None)[0][5] == "0 B", "one look has no rate"
    assert "10/s opened" in heading(NOW, BEFORE)[1]
    assert "down: host-b.rack-b.example, host-c.rack-c.example" in heading(NOW, BEFORE)
    assert rows(keys("2"))[0][4] == "1.0 KiB"
    assert [row[0] for row in rows(keys("3"))] == ["host-c.rack-c.example", "host-b.rack-b.example"]


@pytest.mark.parametrize(
    ("typed", "first"),
    [("", "web"), ("s", "redis"), ("sr", "web"), ("ssss", "web"), ("/red\r", "redis"), ("/RED", "redis")],
)
def test_sorting_and_filtering(typed: str, first: str) -> None:
    assert rows(keys(typed))[0][0] == first


def test_keys() -> None:
    assert keys("q").over
    assert keys("\x03").over
    assert not keys("/q").over, "it is part of the filter"
    assert keys("/ab\x7f").filter == "a"
    assert keys("/ab\x1b") == TopState()
    assert keys("p").paused
    assert not keys("pp").paused
    assert keys("z\x00") == TopState()
    assert (keys("2").view, keys("23").view) == ("links", "hosts")
    assert rows(keys("/nothing\r")) == []
