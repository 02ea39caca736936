"""``hostlane tap``: the streams of a service as they open and end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlencode

import click
import msgspec
from rich.console import Console

from control.api import admin
from control.api.accessline import TapLine
from control.api.messages import ServiceRoute
from control.base.grid import ENDLESS, columns
from control.base.rows import Column, Rows
from control.base.terminal import fail, printable
from control.cli import complete
from control.cli.commands import asks_a_proxy, socket_of
from control.cli.live import INTERVAL
from control.cli.tables import amount, span

COLUMNS = (
    Column("time", 12), Column("event", 6), Column("direction", 9), Column("caller", 12), Column("pid", 7, right=True),
    Column("peer", 12), Column("link", 14), Column("wait", 9, right=True), Column("open", 9, right=True),
    Column("first byte", 10, right=True), Column("age", 8, right=True), Column("sent", 9, right=True),
    Column("received", 9, right=True), Column("stalled", 16), Column("id", 22), Column("reason", 0),
)  # fmt: skip
LEAST = ("id", "link", "pid", "stalled", "first byte", "wait", "direction", "sent", "open", "received")
"""Columns that are left out where there is no room, the least important first."""


@click.command()
@click.argument("service", shell_complete=complete.services)
@click.option("--caller", metavar="NAME", help='Only of this caller: a service, or "uid N", as `edges` shows it.')
@click.option("--peer", metavar="HOST", shell_complete=complete.peers, help="Only with this host.")
@click.option("--direction", type=click.Choice(["outbound", "inbound", "local"]), help="Only these.")
@click.option("--failed", is_flag=True, help="Only streams that were not delivered, or that a proxy ended.")
@asks_a_proxy
def tap(
    service: str,
    caller: str | None,
    peer: str | None,
    direction: str | None,
    failed: bool,
    config: str | None,
    socket: str | None,
    as_json: bool,
) -> None:
    """Show streams of SERVICE as they open and end.

    Until Ctrl-C; of this host's callers, and of peers. When the proxy is started again, it waits. Only the admin socket
    lets one watch. What cannot be shown fast enough is lost, and counted.
    """
    at = socket_of(config, socket)
    asked = {"service": service, "caller": caller, "peer": peer, "direction": direction}
    query = {key: value for key, value in asked.items() if value is not None} | ({"failed": "yes"} if failed else {})
    path = f"/tap?{urlencode(query)}"
    try:
        _doubt(at, service)
        lines = _following(at, path)
        next(lines)
        _show(lines, as_json)
    except admin.NoAnswer as error:
        fail(error, 1)
    except KeyboardInterrupt:
        pass


def _doubt(at: str, service: str) -> None:
    """Say so if no stream of this service can come by, as far as is known."""
    routes, _ = admin.ask(at, "/services", list[ServiceRoute])
    here = [route.service for route in routes if route.listen is not None or route.deliver is not None]
    if service not in here:
        names = ", ".join(here) or "none"
        said = f"this host neither calls nor offers {service} (it does: {names})"
        click.echo(f"hostlane: {printable(said)}", err=True)


def _following(at: str, path: str) -> Iterator[TapLine | None]:
    """What the proxy tells, and whichever proxy has its place later. Raises NoAnswer if none answers to begin with."""
    seen, waiting = False, False
    while True:
        why = f"{at}: the proxy has ended, or another one has taken over"
        try:
            with closing(admin.listen(at, path, TapLine)) as lines:
                for line in lines:
                    seen, waiting = True, False
                    yield line
        except admin.NoAnswer as error:
            if not seen:
                raise
            why = str(error)
        if not waiting:
            click.echo(f"hostlane: {printable(why)}; waiting for it", err=True)
        waiting = True
        time.sleep(INTERVAL)


def _show(lines: Iterator[TapLine | None], as_json: bool) -> None:
    rows = Rows(COLUMNS, LEAST, columns() if Console().is_terminal else ENDLESS)
    if not as_json:
        for text in rows.head():
            click.echo(text)
    sys.stdout.flush()
    for line in lines:
        if line is None:
            continue
        if as_json:
            click.echo(msgspec.json.encode(line))
        else:
            if line.lost:
                click.echo(f"({line.lost} lost)")
            click.echo(rows.row(_cells(line)))
        sys.stdout.flush()


def _cells(line: TapLine) -> list[str]:
    uid = "-" if line.uid is None else f"uid {line.uid}"
    reason = line.reason or ""
    return [
        line.time[11:23], line.event, line.direction, line.caller or uid, "-" if line.pid is None else str(line.pid),
        line.peer or "-", line.link or "-", _ms(line.wait_ms), _ms(line.open_ms), _ms(line.first_byte_ms),
        span(line.age_s), amount(line.sent), amount(line.received),
        ", ".join(f"{cause} {span(spent)}" for cause, spent in line.stalled_s.items()), line.id or "-",
        f"{reason}: {line.detail}" if line.detail else reason,
    ]  # fmt: skip


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"
