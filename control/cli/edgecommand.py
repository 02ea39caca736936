"""``hostlane edges``: who talks to whom, as this machine's control server knows it, or else its proxy."""

from __future__ import annotations

import click
import msgspec

from control.api import admin
from control.api.messages import Edges
from control.base.grid import Block
from control.base.terminal import printable
from control.cli import live, tables
from control.cli.whom import as_json, ask_control, asks, is_proxys, place


@click.command()
@asks("control server or proxy")
@as_json
@click.option("--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")
def edges(config: str | None, socket: str | None, as_json: bool, watch: bool) -> None:
    """Show who talks to whom.

    Callers, services, and what passes between them.

    A proxy knows the edges of its own host, a control server the busiest ones of each host of the mesh. What is missing
    is said on stderr. Exit 1 if nobody answers.
    """
    asked = place(config, socket)

    def look() -> tuple[Edges, bytes]:
        if is_proxys(asked):
            return admin.ask(asked, "/edges", Edges)
        found = ask_control(None, asked, lambda client: client.edges())
        return found, msgspec.json.encode(found)

    def render(found: Edges) -> list[Block]:
        return [tables.edges_table(found.edges)]

    found = live.tell(look, watch, as_json, render)
    for name, why in sorted(found.missing.items() if found is not None else ()):
        click.echo(f"hostlane: {printable(f'{name}: {why}')}", err=True)
