"""``hostlane status | health | links``: what a running proxy tells about itself."""

from __future__ import annotations

import sys
from collections.abc import Callable

import click

from control.api import admin
from control.api.messages import LinkInfo, PeerStatus, Status
from control.base.options import A_FILE
from control.base.terminal import fail, printable
from control.cli import live, tables


def asks_a_proxy(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which proxy is asked and how the answer is shown."""
    command = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")(command)
    where = "The proxy's admin socket, or its telemetry.socket."
    command = click.option("--socket", metavar="PATH", type=A_FILE, help=where)(command)
    said = "The configuration that the proxy runs with."
    return click.option("--config", metavar="FILE", type=A_FILE, help=said)(command)


watched = click.option("--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")


@click.command()
@asks_a_proxy
@watched
def status(config: str | None, socket: str | None, as_json: bool, watch: bool) -> None:
    """Show what this host's proxy does.

    Exit 1 if no proxy answers, if no host can serve one of the upstreams, if a socket or the links' address is
    missing, if nothing can be accepted at one, if this host's name is another proxy's, or if the control plane refuses
    its certificate (revoked, expired).
    """
    at = socket_of(config, socket)
    found = live.tell(lambda: admin.ask(at, "/status", Status), watch, as_json, tables.status_tables)
    if found is None:
        return
    faults = [*unserved(found), *found.missing, *found.cannot_accept, *misnamed(found)]
    for line in faults:
        click.echo(f"hostlane: {printable(line)}", err=True)
    if faults:
        sys.exit(1)


@click.command()
@click.argument("question", type=click.Choice(["alive", "ready", "mesh"]), default="ready")
@asks_a_proxy
def health(config: str | None, socket: str | None, as_json: bool, question: str) -> None:
    """Ask whether this host's proxy is alive or ready.

    alive: its loop turns. ready (the default): it can accept and deliver, whatever other hosts do. mesh: all its peers
    can be reached. Exit 1, and a line for each reason, if not or if there is no answer.
    """
    try:
        found, raw = admin.health(socket_of(config, socket), question)
    except admin.NoAnswer as error:
        fail(error, 1)
    if as_json:
        click.echo(raw)
    else:
        click.echo(question if found.ok else f"not {question}")
        for line in found.problems:
            click.echo(printable(line), err=True)
    sys.exit(0 if found.ok else 1)


@click.command()
@asks_a_proxy
@watched
def links(config: str | None, socket: str | None, as_json: bool, watch: bool) -> None:
    """Show the links to other hosts."""
    at = socket_of(config, socket)
    live.tell(
        lambda: admin.ask(at, "/links", list[LinkInfo]), watch, as_json, lambda found: [tables.links_table(found)]
    )


def unserved(status: Status) -> list[str]:
    """A line for each upstream that no host can serve. A peer whose first dial has not failed yet may still do so."""
    peers = {peer.name: peer for peer in status.peers}
    lines = []
    for upstream in status.upstreams:
        hosts = [peers.get(name) for name in upstream.offered_by]
        if status.host in upstream.offered_by or any(host is not None and _may_serve(host) for host in hosts):
            continue
        reasons = "; ".join(_describe(host) for host in hosts if host is not None) or "nobody offers it"
        lines.append(f"upstream {upstream.service} cannot be served: {reasons}")
    return lines


def misnamed(status: Status) -> list[str]:
    """A line for each way in which this host's name is not its own: another proxy has it (one that the control plane
    refused has not), or the certificate for it does not count.
    """
    found = status.control
    lost = found is not None and (found.displaced or found.barred)
    lines = [f"not registered: {found.registration_error}"] if found is not None and lost else []
    return [*lines, *status.namesakes]


def _may_serve(peer: PeerStatus) -> bool:
    return peer.state == "up" or peer.idle or (peer.state == "dialling" and peer.last_error is None)


def _describe(peer: PeerStatus) -> str:
    return f"{peer.name} is {peer.state}" + (f" ({peer.last_error})" if peer.last_error else "")


def socket_of(config: str | None, socket: str | None) -> str:
    """See `admin.socket_of`; exits with 2 where the options do not say."""
    try:
        return admin.socket_of(config, socket)
    except admin.BadConfig as error:
        fail(error, 2)
