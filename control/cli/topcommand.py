"""``hostlane top``: what the proxy carries, live."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console

from control.api import admin
from control.api.messages import LinkInfo, Status, StreamInfo
from control.base.grid import columns, laid_out, show
from control.base.options import A_FILE, seconds
from control.base.terminal import fail, printable
from control.cli.commands import socket_of
from control.cli.topview import HELP, VIEWS, Look, TopState, heading, table

MANY = 10_000
"""Streams from which on there are three intervals between two looks: each is some megabytes of answer."""
_HOME, _REST, _BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


@click.command()
@click.option("--config", metavar="FILE", type=A_FILE, help="The configuration that the proxy runs with.")
@click.option("--socket", metavar="PATH", type=A_FILE, help="The proxy's admin socket, or its telemetry.socket.")
@click.option("--interval", default="1s", show_default=True, callback=seconds, metavar="TIME", help="Between looks.")
@click.option("--view", type=click.Choice(VIEWS), default=VIEWS[0], show_default=True, help="What to begin with.")
@click.option("--filter", "words", default="", metavar="TEXT", help="Only rows in which this is.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after so many looks.")
def top(
    config: str | None, socket: str | None, interval: float, view: str, words: str, count: int | None
) -> None:
    """Show live what the proxy carries: calls, links, hosts.

    Keys: 1, 2, 3 choose the table, s the column that it is sorted by, r turns the order round, / filters, p pauses, q
    ends. Without a terminal, and on one that cannot (TERM=dumb), one look is printed below the other.
    """
    at, state = socket_of(config, socket), TopState(view=view, filter=words)
    try:
        first = _look(at)
    except admin.NoAnswer as error:
        fail(error, 1)
    console = Console()
    try:
        if console.is_terminal and not console.is_dumb_terminal and sys.stdin.isatty():
            with _keys() as key:
                _live(at, first, state, interval, count, key)
        else:
            _plainly(at, first, state, interval, count)
    except KeyboardInterrupt:
        pass


def _look(at: str) -> Look:
    """Raises NoAnswer."""
    status, links, streams = (
        admin.ask(at, "/status", Status)[0],
        admin.ask(at, "/links", list[LinkInfo])[0],
        admin.ask(at, "/streams", list[StreamInfo])[0],
    )
    return Look(time.monotonic(), status, links, streams)


def _pause(look: Look, interval: float) -> float:
    return interval * 3 if len(look.streams) > MANY else interval


def _plainly(at: str, look: Look, state: TopState, interval: float, count: int | None) -> None:
    before, shown = None, 0
    while True:
        for line in heading(look, before):
            click.echo(printable(line))
        show([table(state, look, before)])
        shown += 1
        if shown == count:
            return
        click.echo()
        sys.stdout.flush()
        time.sleep(_pause(look, interval))
        try:
            before, look = look, _look(at)
        except admin.NoAnswer as error:
            click.echo(f"hostlane: {printable(str(error))}; waiting for it", err=True)


def _live(
    at: str, look: Look, state: TopState, interval: float, count: int | None, key: Callable[[float], str]
) -> None:
    before: Look | None = None
    trouble, looks = "", 1
    due = time.monotonic() + _pause(look, interval)
    while not state.over:
        _draw(frame(state, look, before, trouble, columns(), _height()))
        if (left := due - time.monotonic()) > 0 and (pressed := key(left)):
            for each in pressed:
                state = state.key(each)
            continue
        if time.monotonic() < due:
            continue
        if not state.paused:
            if looks == count:
                return
            try:
                before, look, trouble, looks = look, _look(at), "", looks + 1
            except admin.NoAnswer as error:
                trouble = str(error)
        due = time.monotonic() + _pause(look, interval)


def frame(state: TopState, look: Look, before: Look | None, trouble: str, width: int, height: int) -> list[str]:
    """The lines of a screen, none of them wider and not more of them."""
    lines = [printable(line) for line in heading(look, before)]
    if trouble:
        lines.insert(0, f"waiting for an answer: {printable(trouble)}")
    lines = [*(line[:width] for line in lines[: max(2, height // 3)]), ""]
    console = Console(markup=False, highlight=False, width=width, color_system=None, force_terminal=False)
    with console.capture() as captured:
        console.print(*laid_out([table(state, look, before)], width))
    said = f"filter: {printable(state.filter)}{'_' if state.typing else ''}  " if state.filter or state.typing else ""
    last = f"{'paused  ' if state.paused else ''}{said}{HELP}"[:width]
    rows = [line.rstrip() for line in captured.get().splitlines()]
    return [*[*lines, *rows][: height - 1], last]


def _draw(lines: list[str]) -> None:
    sys.stdout.write(_HOME + "\n".join(line + _REST for line in lines) + _BELOW)
    sys.stdout.flush()


def _height() -> int:
    try:
        lines = os.get_terminal_size(sys.stdout.fileno()).lines
    except OSError:
        lines = 0
    return max(6, lines or 24)


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """What waits for keys, for so many seconds at most; inside of it the terminal is one of keys, not of lines."""
    stdin = sys.stdin.fileno()
    before = termios.tcgetattr(stdin)

    def pressed(seconds: float) -> str:
        ready, _, _ = select.select([stdin], [], [], seconds)
        return os.read(stdin, 64).decode("utf-8", "replace") or "q" if ready else ""

    try:
        tty.setcbreak(stdin)
        sys.stdout.write(_ENTER)
        yield pressed
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
