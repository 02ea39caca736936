"""Tables for people, as wide as there is room: a terminal gets the columns that matter most, a pipe gets all of them.

What is shown comes from others: it is shown whatever it is, and never interpreted by the terminal.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from rich.cells import cell_len, set_cell_size
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from control.base.terminal import printable

ENDLESS = 1000
"""Columns of what is no terminal: whoever reads it there wants all."""
GAP = 2
"""Blanks between two columns."""
LEAST = 16
"""A column of words is shortened to this, but no further, before others are left out."""
CUT = "..."
_STYLES = {"up": "green", "dialling": "yellow", "down": "red"}


class Block(Protocol):
    """A part of what a command shows."""

    def within(self, width: int) -> Iterator[RenderableType]:
        """What is printed where there are so many columns; no line of it is wider."""
        ...


@dataclass(frozen=True)
class Grid:
    """Rows of plain cells under names of columns; one whose name ends in ``>`` stands to the right, as numbers do.

    Attributes:
        least: columns that are left out when there is no room for all, the least important one first.
        words: the column whose cells are shortened, if need be.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    least: Sequence[str] = ()
    words: str | None = None

    def within(self, width: int) -> Iterator[RenderableType]:
        """The table, and a line that names the columns that are left out."""
        names = [name.removesuffix(">") for name in self.columns]
        cells = [[printable(cell) for cell in row] for row in self.rows]
        needed = {
            name: max([cell_len(name), *(cell_len(row[position]) for row in cells)])
            for position, name in enumerate(names)
        }
        gone = _left_out(needed, self.least, self.words, width)
        shown = {name: size for name, size in needed.items() if name not in gone}
        if (over := _total(shown) - width) > 0:
            longest = self.words if self.words in shown else max(shown, key=lambda name: shown[name])
            shown[longest] = max(shown[longest] - over, len(CUT) + 1)
        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
        for name in self.columns:
            plain = name.removesuffix(">")
            if plain in shown:
                table.add_column(short(plain, shown[plain]), justify="right" if plain != name else "left",
                                 no_wrap=True)  # fmt: skip
        for row in cells:
            kept = [(name, cell) for name, cell in zip(names, row, strict=True) if name in shown]
            table.add_row(*[Text(short(cell, shown[name]), style=_STYLES.get(cell, "")) for name, cell in kept])
        yield table
        if gone:
            yield Text(short(f"no room for: {', '.join(name for name in names if name in gone)}", width), style="dim")


@dataclass(frozen=True)
class Facts:
    """Names with what there is to say about each; long words go on below themselves."""

    rows: Sequence[tuple[str, str]]

    def within(self, width: int) -> Iterator[RenderableType]:
        """One table."""
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, GAP, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for key, value in self.rows:
            table.add_row(Text(key, style="bold"), Text(printable(value)))
        yield table


def grid(
    columns: Sequence[str], rows: Iterable[Sequence[str]], least: Sequence[str] = (), words: str | None = None
) -> Grid:
    """A `Grid`."""
    return Grid(columns, list(rows), least, words)


def show(blocks: Sequence[Block]) -> None:
    """Print them, with a blank line between two: as wide as the terminal, or whole where there is none."""
    width = columns() if Console().is_terminal else ENDLESS
    # With a height, too, as rich takes a dumb terminal for 80 wide unless it is told both.
    Console(markup=False, highlight=False, width=width, height=ENDLESS).print(*laid_out(blocks, width))


def columns() -> int:
    """Of the terminal: what COLUMNS says, or what it says itself; 80 where neither does."""
    return max(20, shutil.get_terminal_size((80, 24)).columns)


def laid_out(blocks: Sequence[Block], width: int) -> Iterator[RenderableType]:
    """The blocks with blank lines between them."""
    for position, block in enumerate(blocks):
        if position:
            yield ""
        yield from block.within(width)


def _left_out(needed: dict[str, int], least: Sequence[str], words: str | None, width: int) -> set[str]:
    """The columns without which the others fit."""
    least_wide = {name: min(size, LEAST) if name == words else size for name, size in needed.items()}
    gone: set[str] = set()
    for name in least:
        if _total({each: size for each, size in least_wide.items() if each not in gone}) <= width:
            break
        gone.add(name)
    return gone


def _total(sizes: dict[str, int]) -> int:
    return sum(sizes.values()) + GAP * max(0, len(sizes) - 1)


def short(text: str, size: int) -> str:
    """The text, or as much of it as has room in so many columns of a terminal, with CUT."""
    return text if cell_len(text) <= size else set_cell_size(text, max(0, size - len(CUT))).rstrip() + CUT
