"""A table whose rows come one after the other, so that nobody knows how wide the next one will be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.cells import cell_len

from control.base.grid import GAP, short
from control.base.terminal import printable

LAST = 20
"""What the last column, which has no width of its own, has at least."""


class Column(NamedTuple):
    """`width`: of its cells, in places of a terminal; a longer one is shortened where width is scarce, and moves the
    others elsewhere. 0: whatever is left. `right`: its cells stand to the right, as numbers do.
    """

    name: str
    width: int
    right: bool = False


class Rows:
    """Args:
    columns: the last one gets what is left.
    least: columns that are left out where there is no room for all, the least important one first.
    width: of a terminal; a pipe's is so large that all have room.
    """

    def __init__(self, columns: Sequence[Column], least: Sequence[str], width: int) -> None:
        self._columns, self._width, self._gone = columns, width, set[str]()
        for name in least:
            if sum((column.width or LAST) + GAP for column in columns if column.name not in self._gone) - GAP <= width:
                break
            self._gone.add(name)

    def head(self) -> Iterator[str]:
        """The names of the columns; and, of those that are left out, a line."""
        if self._gone:
            missing = ", ".join(column.name for column in self._columns if column.name in self._gone)
            yield short(f"no room for: {missing}", self._width)
        yield self.row([column.name for column in self._columns])

    def row(self, cells: Sequence[str]) -> str:
        """One row, without a newline; it is not wider than the terminal."""
        shown = []
        for column, cell in zip(self._columns, map(printable, cells), strict=True):
            if column.name in self._gone:
                continue
            if column.width:
                cell = short(cell, column.width) if self._gone else cell
                blanks = " " * max(0, column.width - cell_len(cell))
                cell = blanks + cell if column.right else cell + blanks
            shown.append(cell)
        line = (" " * GAP).join(shown).rstrip()
        return short(line, self._width)
