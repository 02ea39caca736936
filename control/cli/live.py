"""What goes on being shown for as long as somebody watches (``--watch``), whatever is started again meanwhile."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from control.api import admin
from control.base.grid import Block, columns, laid_out, show
from control.base.terminal import fail, printable

T = TypeVar("T")

INTERVAL = 1.0
"""Seconds between two looks at a proxy, which does not tell by itself that something has changed; and between two at
somebody who does not answer."""


class Screen:
    """Shows one frame in the place of the one before, on a terminal; elsewhere, and on one that cannot (TERM=dumb),
    they come one below the other.
    """

    def __init__(self, live: Live | None) -> None:
        self._live, self._last, self._trouble = live, list[Block](), ""

    def show(self, blocks: Sequence[Block]) -> None:
        """What there is to see now."""
        self._last, self._trouble = list(blocks), ""
        if self._live is None:
            show(self._last)
            sys.stdout.flush()
        else:
            self._update(self._live)

    def answered(self) -> None:
        """There was an answer again, which is shown by other means."""
        self._trouble = ""

    def trouble(self, reason: str) -> None:
        """Nobody answers for now. What was last seen stays, below the reason; without a terminal the reason is a line
        on stderr, when it begins.
        """
        began, self._trouble = not self._trouble, reason
        if self._live is not None:
            self._update(self._live)
        elif began:
            click.echo(f"hostlane: {printable(reason)}; waiting for it", err=True)

    def _update(self, live: Live) -> None:
        width = columns()
        said: list[RenderableType] = []
        if self._trouble:
            said = [Text(f"{printable(self._trouble)}; waiting for it", style="red"), ""]
        live.console.width = width
        live.update(Group(*said, *laid_out(self._last, width)), refresh=True)


@contextmanager
def screen() -> Iterator[Screen]:
    """A `Screen`. Ctrl-C ends the block, and is no error."""
    console = Console(markup=False, highlight=False)
    try:
        if not console.is_terminal or console.is_dumb_terminal:
            yield Screen(None)
            return
        with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis", screen=True) as live:
            yield Screen(live)
    except* KeyboardInterrupt:
        pass


def tell(
    look: Callable[[], tuple[T, bytes]], watched: bool, as_json: bool, render: Callable[[T], Sequence[Block]]
) -> T | None:
    """Show what `look` finds, the answer and its JSON: once, or again and again until Ctrl-C. Exit 1 with one line when
    nobody answers to begin with. Returns what was found once.
    """
    try:
        if watched:
            watch(look, as_json, render, admin.NoAnswer)
            return None
        found, raw = look()
    except admin.NoAnswer as error:
        fail(error, 1)
    if as_json:
        click.echo(raw)
    else:
        show(render(found))
    return found


def watch(
    look: Callable[[], tuple[T, bytes]],
    as_json: bool,
    render: Callable[[T], Sequence[Block]],
    no_answer: type[Exception],
) -> None:
    """Look every `INTERVAL`, and show what is found as tables, or as lines of JSON; until Ctrl-C.

    Raises what the first look raises. Later ones may raise `no_answer` for a while: who is watched is started again.
    """
    found, raw = look()
    with screen() as shown:
        while True:
            if as_json:
                shown.answered()
                click.echo(raw)
                sys.stdout.flush()
            else:
                shown.show(render(found))
            while True:
                time.sleep(INTERVAL)
                try:
                    found, raw = look()
                    break
                except no_answer as error:
                    shown.trouble(str(error))
