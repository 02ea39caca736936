"""``hostlane explain SERVICE``."""

from __future__ import annotations

import click

from control.api import admin
from control.api.messages import LinkInfo, Status, UpstreamStatus
from control.base.options import A_FILE
from control.base.terminal import fail
from proxy.errors import HostlaneError


@click.command()
@click.argument("service")
@click.option("--config", metavar="FILE", type=A_FILE, help="The configuration that the proxy runs with.")
@click.option("--socket", metavar="PATH", type=A_FILE, help="The proxy's admin socket.")
@click.option(
    "--to", metavar="ADDRESS", help="Where the service would be called directly; default: its host's address."
)
@click.option(
    "--from", "pid", metavar="PID", type=click.IntRange(1), help="Look at the direct way of this process (root)."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain(
    service: str, config: str | None, socket: str | None, to: str | None, pid: int | None, as_json: bool
) -> None:
    """Show the way of a message, directly and through Hostlane.

    Each layer that it passes, with the round trip of what can be measured from here. SERVICE is an upstream of the
    running proxy. As root more of the way can be followed. Exit 1 if no proxy answers.
    """
    import msgspec
    from rich.console import Console

    from proxy.explain.account import explain as put_together
    from proxy.explain.gather import gather
    from proxy.explain.show import lines

    try:
        path = admin.socket_of(config, socket)
    except admin.BadConfig as error:
        fail(error, 2)
    try:
        status, _ = admin.ask(path, "/status", Status)
        links, _ = admin.ask(path, "/links", list[LinkInfo])
        found = put_together(gather(path, status, links, _upstream(service, status), to, pid))
    except (admin.NoAnswer, HostlaneError) as error:
        fail(error, 1)
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    console = Console(highlight=False, soft_wrap=True)
    for line in lines(found):
        console.print(line)


def _upstream(name: str, status: Status) -> UpstreamStatus:
    for upstream in status.upstreams:
        if upstream.service == name:
            return upstream
    known = ", ".join(upstream.service for upstream in status.upstreams) or "none so far"
    fail(f"found no upstream {name!r} of the proxy on {status.host}; allowed: {known}", 2)
