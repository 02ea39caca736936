"""``hostlane hosts | services``: the mesh, as the control server on this machine knows it, or else its proxy.

Whoever answers, the answer is the same: a list of `MeshHost`, or of `MeshService`.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import click
import msgspec

from control.api import admin, mesh
from control.api.mesh import followed
from control.api.messages import MeshHost, MeshService, ServiceRoute
from control.base.errors import HostlaneError
from control.base.grid import Grid
from control.base.suggest import SuggestingGroup
from control.base.terminal import fail
from control.cli import complete, live, meshtables, tables
from control.cli.whom import as_json, ask_control, asks, is_proxys, place, told, watching

if TYPE_CHECKING:
    from control.api.client import ControlClient

T = TypeVar("T", MeshHost, MeshService)


@click.group(cls=SuggestingGroup, invoke_without_command=True)
@asks("control server or proxy")
@as_json
@watching
@click.pass_context
def hosts(context: click.Context, config: str | None, socket: str | None, as_json: bool, watch: bool) -> None:
    """Show the hosts of the mesh.

    Exit 1 if nobody answers.
    """
    if context.invoked_subcommand is None:
        asked = place(config, socket)
        if is_proxys(asked):
            _show(lambda: _hosts_of_proxy(asked), as_json, watch, meshtables.hosts_table)
        else:
            _show_map(asked, as_json, watch, hosts_of, meshtables.hosts_table)


@hosts.command("remove")
@click.argument("name", shell_complete=complete.hosts)
@asks("control server")
def hosts_remove(name: str, config: str | None, socket: str | None) -> None:
    """Take host NAME off the map and free its addresses, at once. (One that is running registers again; see revoke.)"""
    ask_control(config, socket, lambda client: client.remove(name))


@click.command()
@click.option(
    "--explain",
    metavar="NAME",
    shell_complete=complete.services,
    help="Which host a new stream for this service would take, and why; who may call it here, and was refused.",
)
@click.option(
    "--hosts",
    "as_hosts",
    is_flag=True,
    help="The lines of /etc/hosts, and of a compose file, by which containers know them by name.",
)
@asks("control server or proxy")
@as_json
@watching
def services(
    explain: str | None, as_hosts: bool, config: str | None, socket: str | None, as_json: bool, watch: bool
) -> None:
    """Show services and the hosts that offer them.

    --explain asks this machine's proxy, which is who chooses. Exit 1 if nobody answers, or if nobody offers NAME.
    """
    if as_hosts:
        if explain is not None or as_json or watch:
            raise click.UsageError("--hosts goes with none of --explain, --json and --watch")
        return _as_hosts(place(config, socket))
    if explain is not None:
        if watch:
            raise click.UsageError("--explain and --watch do not go together")
        return _explain(explain, place(config, socket, only_proxy=True), as_json)
    asked = place(config, socket)
    if is_proxys(asked):
        _show(lambda: _services_of_proxy(asked), as_json, watch, meshtables.services_table)
    else:
        _show_map(asked, as_json, watch, services_of, meshtables.services_table)


def _as_hosts(asked: str) -> None:
    """The same address in every container of the mesh, as labels without one have it (docs/containers.md)."""
    from control.base.reading.serviceaddress import address_of, shared

    try:
        found = _services_of_proxy(asked) if is_proxys(asked) else services_of(
            ask_control(None, asked, lambda client: client.hosts())
        )  # fmt: skip
    except admin.NoAnswer as error:
        fail(error, 1)
    places = [(each.service, address_of(each.service)) for each in found]
    click.echo("# /etc/hosts")
    for name, address in places:
        click.echo(f"{address} {name}")
    click.echo("# compose\nextra_hosts:")
    for name, address in places:
        click.echo(f'  - "{name}:{address}"')
    for line in shared(name for name, _ in places):
        click.echo(f"hostlane: {line}", err=True)


def hosts_of(found: mesh.MapSnapshot) -> list[MeshHost]:
    """The hosts of the map. Whether they can be reached is for each proxy to say."""
    return [
        MeshHost(
            name=host.name,
            address=host.address,
            state=None,
            services=[offer.name for offer in host.services],
            version=host.version,
            segment=host.segment or None,
        )
        for host in found.hosts
    ]


def services_of(found: mesh.MapSnapshot) -> list[MeshService]:
    """The services of the map."""
    offered: dict[str, list[str]] = {}
    for host in found.hosts:
        for offer in host.services:
            offered.setdefault(offer.name, []).append(host.name)
    return [MeshService(service=name, offered_by=hosts) for name, hosts in sorted(offered.items())]


def _hosts_of_proxy(asked: str) -> list[MeshHost]:
    return admin.ask(asked, "/hosts", list[MeshHost])[0]


def _services_of_proxy(asked: str) -> list[MeshService]:
    routes, _ = admin.ask(asked, "/services", list[ServiceRoute])
    return [
        MeshService(service=each.service, listen=each.listen, offered_by=[host.host for host in each.candidates])
        for each in routes
    ]


def _show(look: Callable[[], list[T]], as_json: bool, watch: bool, table: Callable[[Sequence[T]], Grid]) -> None:
    def looked() -> tuple[list[T], bytes]:
        found = look()
        return found, msgspec.json.encode(found)

    try:
        if watch:
            live.watch(looked, as_json, lambda found: [table(found)], admin.NoAnswer)
        else:
            found = look()
            told(found, as_json, lambda: [table(found)])
    except admin.NoAnswer as error:
        fail(error, 1)


def _show_map(
    asked: str,
    as_json: bool,
    watch: bool,
    of_map: Callable[[mesh.MapSnapshot], list[T]],
    table: Callable[[Sequence[T]], Grid],
) -> None:
    if not watch:
        found = of_map(ask_control(None, asked, lambda client: client.hosts()))
        told(found, as_json, lambda: [table(found)])
        return
    ask_control(None, asked, lambda client: client.hosts())  # whoever is not there now is not waited for
    with live.screen() as screen:

        def frame(known: mesh.MapSnapshot) -> None:
            found = of_map(known)
            if as_json:
                screen.answered()
                click.echo(msgspec.json.encode(found))
                sys.stdout.flush()
            else:
                screen.show([table(found)])

        ask_control(None, asked, lambda client: _watch(client, frame, screen.trouble))


async def _watch(
    client: ControlClient, shown: Callable[[mesh.MapSnapshot], None], trouble: Callable[[str], None]
) -> None:
    """Show the map, and again each time it changes. A server that is gone is waited for."""
    import trio

    while True:
        known: mesh.MapSnapshot | None = None
        try:
            async with client.watch() as messages:
                async for message in messages:
                    if not isinstance(message, mesh.MapHeartbeat):
                        known = followed(known, message)
                        shown(known)
            trouble("the control server has ended")
        except HostlaneError as error:
            trouble(str(error))
        await trio.sleep(live.INTERVAL)


def _explain(service: str, asked: str, as_json: bool) -> None:
    try:
        routes, _ = admin.ask(asked, "/services", list[ServiceRoute])
    except admin.NoAnswer as error:
        fail(error, 1)
    route = next((each for each in routes if each.service == service), None)
    if route is None:
        near = difflib.get_close_matches(service, [each.service for each in routes], n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        fail(HostlaneError(f"service {service}: nobody offers it, and this host does not call it{hint}"), 1)
    told(route, as_json, lambda: tables.route_tables(route))
    if not route.candidates:
        sys.exit(1)
