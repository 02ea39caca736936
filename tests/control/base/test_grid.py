from __future__ import annotations

import io
import os
import pty
import subprocess
import sys

import pytest
from rich.console import Console

from control.base.grid import ENDLESS, Block, Facts, grid

WIDE = grid(
    ["name", "small>", "big>", "why"],
    [("a" * 20, "1", "2" * 30, "for a long time nothing has come this way, so it is kept"), ("b", "up", "3", "-")],
    least=["small", "big"],
    words="why",
)


def lines(block: Block, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, markup=False, highlight=False).print(*block.within(width))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_a_pipe_gets_all() -> None:
    head, one, other = lines(WIDE, ENDLESS)
    assert head.split() == ["name", "small", "big", "why"]
    assert one.endswith("so it is kept")
    assert other.split() == ["b", "up", "3", "-"]


def test_the_least_important_column_goes_first_and_is_named() -> None:
    head, *_ = lines(WIDE, 78)
    assert head.split() == ["name", "small", "big", "why"], "words are shortened first"
    head, one, _, note = lines(WIDE, 72)
    assert head.split() == ["name", "big", "why"]
    assert one.endswith("...")
    assert note == "no room for: small"
    assert lines(WIDE, 50)[-1] == "no room for: small, big"


def test_no_line_is_wider_than_the_terminal() -> None:
    facts = Facts([("name", "x" * 300), ("why", "words and words " * 20)])
    for width in range(20, 130):
        assert max(map(len, lines(WIDE, width) + lines(facts, width))) <= width


def test_wide_letters_count_twice() -> None:
    _, cell = lines(grid(["n"], [("\u6f22" * 20,)]), 30)
    assert cell == "\u6f22" * 13 + "..."


def test_what_a_terminal_could_act_on_is_escaped() -> None:
    assert "\x1b" not in "".join(lines(WIDE, 80) + lines(grid(["a"], [("\x1b[2J",)]), 80))


CODE = "from control.base.grid import show; from tests.control.base.test_grid import WIDE; show([WIDE])"


@pytest.mark.parametrize(("width", "columns"), [("72", 3), ("200", 4)])
def test_a_terminal_says_how_wide_it_is(width: str, columns: int) -> None:
    master, terminal = pty.openpty()
    environment = os.environ | {"COLUMNS": width, "TERM": "dumb"}
    subprocess.run([sys.executable, "-c", CODE], stdout=terminal, env=environment, timeout=60, check=True)
    os.close(terminal)
    head = os.read(master, 65536).decode().splitlines()[0]
    os.close(master)
    assert len(head.split()) == columns
