"""``hostlane reload | drain``: what a running proxy is told to do."""

from __future__ import annotations

import sys

import click
import msgspec

from control.api import admin
from control.api.messages import DrainProgress, ReloadResult
from control.base.grid import show
from control.base.reading import units
from control.base.terminal import fail, printable
from control.cli.commands import asks_a_proxy, socket_of
from control.cli.tables import holders_table

NOTHING = {"applied": "nothing has changed", "possible": "nothing would change"}
DONE = tuple(NOTHING)
MOST_SECONDS = 86400.0
"""Who wants to wait longer than a day wants no drain."""


def _duration(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Seconds, from what the configuration would say."""
    if value is None:
        return None
    try:
        seconds = units.seconds(value)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MOST_SECONDS:
        raise click.BadParameter(f"{value!r} is not a duration such as 500ms, 30s, 2m or 1h (at most 24h)")
    return seconds


@click.command()
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@asks_a_proxy
def reload(config: str | None, socket: str | None, as_json: bool, dry_run: bool) -> None:
    """Have the proxy read its configuration again.

    It applies the file whole or not at all, and shows what changed; streams go on. Exit 2 if the file is wrong, 1 if
    the running proxy cannot follow it or does not answer; nothing has changed then.
    """
    path = "/reload?dry_run=yes" if dry_run else "/reload"
    try:
        found, raw = admin.order(socket_of(config, socket), path, ReloadResult)
    except admin.NoAnswer as error:
        fail(error, 1)
    if as_json:
        click.echo(raw)
    elif found.outcome in DONE:
        for line in found.changes or [NOTHING[found.outcome]]:
            click.echo(printable(line))
    for problem in found.problems:
        click.echo(printable(problem), err=True)
    sys.exit(0 if found.outcome in DONE else 2 if found.outcome == "wrong" else 1)


@click.command()
@click.option("--timeout", callback=_duration, metavar="TIME", help="Longest wait (default: limits.stop_timeout).")
@click.option("--now", is_flag=True, help="Do not wait: end the streams at once.")
@asks_a_proxy
def drain(config: str | None, socket: str | None, as_json: bool, timeout: float | None, now: bool) -> None:
    """End the proxy when its streams are through.

    It tells its peers, which open no more streams here, waits for the streams, and goes on serving local calls until
    nothing but quiet streams is open. What is left is ended bit by bit over the last quarter of the time. Shows who
    still holds streams. Exit 1 if any had to be cut.
    """
    if now and timeout is not None:
        raise click.UsageError("--now and --timeout both say how long; use one of them")
    seconds = 0.0 if now else timeout
    path = "/drain" if seconds is None else f"/drain?seconds={seconds:g}"
    last: DrainProgress | None = None
    try:
        for last in admin.follow(socket_of(config, socket), path, DrainProgress):
            _tell(last, as_json)
    except admin.NoAnswer as error:
        fail(error, 1)
    if last is None or not last.over:
        fail(admin.NoAnswer("the proxy was gone before it had drained"), 1)
    sys.exit(1 if last.cut else 0)


def _tell(found: DrainProgress, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(found))
    elif found.over:
        quiet = f"{found.closed_quiet} quiet streams were closed, " if found.closed_quiet else ""
        click.echo(f"drained; {quiet}{found.cut or 'no'} {'streams were' if found.cut else 'stream was'} cut")
    else:
        click.echo(f"{found.streams} streams open, {found.cut} cut, {found.left_s:.0f} s left")
        if found.holders:
            show([holders_table(found.holders)])

