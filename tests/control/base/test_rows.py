from __future__ import annotations

import pytest

from control.base.rows import Column, Rows

COLUMNS = (Column("time", 8), Column("caller", 10), Column("sent", 6, right=True), Column("reason", 0))


def test_where_there_is_room() -> None:
    rows = Rows(COLUMNS, ["sent", "caller"], 1000)
    assert list(rows.head()) == ["time      caller        sent  reason"]
    assert rows.row(["12:00:00", "shop", "71 B", "finished"]) == "12:00:00  shop          71 B  finished"
    long = "a-caller-with-a-long-name"
    assert rows.row(["12:00:00", long, "71 B", "x"]) == f"12:00:00  {long}    71 B  x"


@pytest.mark.parametrize("width", range(20, 60))
def test_no_row_is_wider_than_the_terminal(width: int) -> None:
    rows = Rows(COLUMNS, ["sent", "caller"], width)
    said = [*rows.head(), rows.row(["12:00:00", "größer" * 5, "123456", "connect_failed: " + "x" * 90])]
    assert max(map(len, said)) <= width
    assert ("sent" in said[-2]) == (width >= 50), "as soon as all have room"


def test_what_is_left_out_is_named() -> None:
    assert next(Rows(COLUMNS, ["sent", "caller"], 48).head()) == "no room for: sent"


def test_nothing_reaches_the_terminal() -> None:
    assert "\x1b" not in Rows(COLUMNS, [], 80).row(["\x1b[2J", "a", "b", "\n"])
