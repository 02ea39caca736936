"""Showing tables, once or for as long as somebody watches (``--watch``)."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

T = TypeVar("T")

WIDTH = 1000
"""Columns that a table may take. A terminal that is narrower wraps it: half an address helps nobody."""
INTERVAL = 1.0
"""Seconds between two looks at a proxy, which does not tell by itself that something has changed."""


def show(tables: list[Table]) -> None:
    """Print tables, with a blank line between two."""
    Console(markup=False, highlight=False, width=WIDTH).print(*_with_blank_lines(tables))


@contextmanager
def screen() -> Iterator[Callable[[list[Table]], None]]:
    """What shows tables in place of those before: on a terminal; elsewhere they come one below the other. Ctrl-C ends
    the block, and is no error."""
    console = Console(markup=False, highlight=False)
    try:
        if not console.is_terminal:
            yield _show_and_flush
            return
        with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis", screen=True) as live:
            yield lambda tables: live.update(Group(*_with_blank_lines(tables)), refresh=True)
    except* KeyboardInterrupt:
        pass


def watch(look: Callable[[], tuple[T, bytes]], as_json: bool, render: Callable[[T], list[Table]]) -> None:
    """Look every `INTERVAL`, and show what is found as tables, or as lines of JSON; until Ctrl-C, or what `look`
    raises."""
    with screen() as show_now:
        while True:
            found, raw = look()
            if as_json:
                click.echo(raw)
            else:
                show_now(render(found))
            time.sleep(INTERVAL)


def _show_and_flush(tables: list[Table]) -> None:
    show(tables)
    sys.stdout.flush()


def _with_blank_lines(found: list[Table]) -> Iterator[Table | str]:
    for position, table in enumerate(found):
        if position:
            yield ""
        yield table
