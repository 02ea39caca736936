"""``hostlane hosts | services | token | revoke | ca``: the mesh, as the control server on this machine knows it.

``hosts`` and ``services`` ask this machine's proxy where no control server runs.
"""

from __future__ import annotations

import difflib
import os
import socket as socketmodule
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec
from rich.table import Table

from control.api import admin, mesh
from control.api.mesh import followed
from control.api.messages import ServiceRoute, Status
from control.base.errors import HostlaneError
from control.base.reading.addresses import ADMIN_SOCKET, CONTROL_SOCKET, DEFAULT_CONTROL_RUN_DIR, DEFAULT_RUN_DIR
from control.base.terminal import fail
from control.cli import live, meshtables, tables

if TYPE_CHECKING:
    from control.api.client import ControlClient

T = TypeVar("T")


def asks(what: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options that say who is asked."""

    def options(command: Callable[..., None]) -> Callable[..., None]:
        command = click.option("--socket", metavar="PATH", help=f"The {what}'s socket.")(command)
        return click.option("--config", metavar="FILE", help=f"The configuration that the {what} runs with.")(command)

    return options


as_json = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
watching = click.option("--watch", is_flag=True, help="Go on showing what changes, until Ctrl-C.")


@click.group(invoke_without_command=True)
@asks("control server or proxy")
@as_json
@watching
@click.pass_context
def hosts(context: click.Context, config: str | None, socket: str | None, as_json: bool, watch: bool) -> None:
    """Show the hosts of the mesh.

    Exit 1 if nobody answers.
    """
    if context.invoked_subcommand is None:
        _show(config, socket, as_json, watch, meshtables.hosts_table, meshtables.peers_table)


@hosts.command("remove")
@click.argument("name")
@asks("control server")
def hosts_remove(name: str, config: str | None, socket: str | None) -> None:
    """Take host NAME off the map and free its addresses, at once. (One that is running registers again; see revoke.)"""
    ask_control(config, socket, lambda client: client.remove(name))


@click.command()
@click.option("--explain", metavar="NAME", help="Which host a new stream for this service would take, and why.")
@asks("control server or proxy")
@as_json
@watching
def services(explain: str | None, config: str | None, socket: str | None, as_json: bool, watch: bool) -> None:
    """Show services and the hosts that offer them.

    --explain asks this machine's proxy, which is who chooses. Exit 1 if nobody answers, or if nobody offers NAME.
    """
    if explain is not None:
        if watch:
            raise click.UsageError("--explain and --watch do not go together")
        return _explain(explain, _place(config, socket, only_proxy=True), as_json)
    _show(config, socket, as_json, watch, meshtables.services_table, meshtables.known_services_table)


@click.group()
def token() -> None:
    """What hosts join the mesh with: one token, one host, once."""


@token.command("create")
@click.option("--host", required=True, metavar="NAME", help="The host that may join with it.")
@click.option("--ttl", default="10m", show_default=True, metavar="DURATION", help="How long it is good for.")
@asks("control server")
@as_json
def token_create(host: str, ttl: str, config: str | None, socket: str | None, as_json: bool) -> None:
    """Print a token. It is not kept, and cannot be shown again."""
    from control.base.reading import units

    try:
        request = mesh.TokenRequest(host=units.host_name(host), ttl=units.lifetime(ttl))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    created = ask_control(config, socket, lambda client: client.create_token(request))
    click.echo(msgspec.json.encode(created) if as_json else created.token)


@token.command("list")
@asks("control server")
@as_json
def token_list(config: str | None, socket: str | None, as_json: bool) -> None:
    """Show the tokens that nobody has used yet, without their secrets."""
    found = ask_control(config, socket, lambda client: client.tokens())
    _print(found, as_json, lambda: [meshtables.tokens_table(found)])


@token.command("delete")
@click.argument("id")
@asks("control server")
def token_delete(id: str, config: str | None, socket: str | None) -> None:
    """Make a token worthless. Exit 1 if there is none with this ID."""
    ask_control(config, socket, lambda client: client.delete_token(id))


@click.command()
@click.argument("host", required=False)
@click.option("--serial", metavar="HEX", help="One certificate instead of all of a host's.")
@asks("control server")
@as_json
def revoke(host: str | None, serial: str | None, config: str | None, socket: str | None, as_json: bool) -> None:
    """Make a host's certificates worthless.

    Its links are cut within seconds, and it is off the map.
    """
    if (host is None) is (serial is None):
        raise click.UsageError("found neither HOST nor --serial, or both; allowed: one of them")
    request = mesh.RevokeRequest(host=host, serial=serial)
    done = ask_control(config, socket, lambda client: client.revoke(request))
    if as_json:
        click.echo(msgspec.json.encode(done))
    else:
        click.echo(f"{len(done.serials)} certificates revoked")


@click.group()
def ca() -> None:
    """The CA of the mesh, and its rotation.

    Exchange it by add, activate, drop, in this order (docs/operations.md).
    """


@ca.command("status")
@asks("control server")
@as_json
def ca_status(config: str | None, socket: str | None, as_json: bool) -> None:
    """Show the CAs in force, and what hangs on each."""
    found = ask_control(config, socket, lambda client: client.ca_status())
    _print(found, as_json, lambda: [meshtables.ca_table(found)])


@ca.command("add")
@asks("control server")
@as_json
def ca_add(config: str | None, socket: str | None, as_json: bool) -> None:
    """A new CA joins the bundle that hosts trust; the old one goes on issuing."""
    found = ask_control(config, socket, lambda client: client.rotate("add"))
    _print(found, as_json, lambda: [meshtables.ca_table(found)])


@ca.command("activate")
@asks("control server")
@as_json
def ca_activate(config: str | None, socket: str | None, as_json: bool) -> None:
    """The new CA issues; every host renews its certificate now."""
    found = ask_control(config, socket, lambda client: client.rotate("activate"))
    _print(found, as_json, lambda: [meshtables.ca_table(found)])


@ca.command("drop")
@click.option("--force", is_flag=True, help="Also while certificates of the old CA are valid; their hosts are cut off.")
@asks("control server")
@as_json
def ca_drop(force: bool, config: str | None, socket: str | None, as_json: bool) -> None:
    """The CA that does not issue any more leaves the bundle."""
    found = ask_control(config, socket, lambda client: client.rotate("drop", force=force))
    _print(found, as_json, lambda: [meshtables.ca_table(found)])


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a completion script for a shell.

    For example: hostlane completion bash > /etc/bash_completion.d/hostlane
    """
    from click.shell_completion import get_completion_class

    from control.cli.main import hostlane

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(hostlane, {}, "hostlane", "_HOSTLANE_COMPLETE").source())


def _show(
    config: str | None,
    socket: str | None,
    as_json: bool,
    watch: bool,
    of_map: Callable[[mesh.MapSnapshot], Table],
    of_proxy: Callable[[Status], Table],
) -> None:
    place = _place(config, socket)
    if _is_proxys(place):
        _show_proxy(place, as_json, watch, of_proxy)
        return
    if not watch:
        found = ask_control(None, place, lambda client: client.hosts())
        _print(found, as_json, lambda: [of_map(found)])
        return
    with live.screen() as show:
        ask_control(None, place, lambda client: _watch(client, lambda found: _frame(found, as_json, show, of_map)))


async def _watch(client: ControlClient, shown: Callable[[mesh.MapSnapshot], None]) -> None:
    """Show the map, and again each time it changes, until the server ends."""
    found: mesh.MapSnapshot | None = None
    async with client.watch() as messages:
        async for message in messages:
            if not isinstance(message, mesh.MapHeartbeat):
                found = followed(found, message)
                shown(found)


def _frame(
    found: mesh.MapSnapshot, as_json: bool, show: Callable[[list[Table]], None], render: Callable[[Any], Table]
) -> None:
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        show([render(found)])


def _show_proxy(place: str, as_json: bool, watch: bool, of_proxy: Callable[[Status], Table]) -> None:
    def look() -> tuple[Status, bytes]:
        try:
            return admin.ask(place, "/status", Status)
        except admin.NoAnswer as error:
            fail(error, 1)

    if watch:
        live.watch(look, as_json, lambda found: [of_proxy(found)])
        return
    found, raw = look()
    if as_json:
        click.echo(raw)
    else:
        live.show([of_proxy(found)])


def _explain(service: str, place: str, as_json: bool) -> None:
    try:
        routes, _ = admin.ask(place, "/services", list[ServiceRoute])
    except admin.NoAnswer as error:
        fail(error, 1)
    route = next((each for each in routes if each.service == service), None)
    if route is None:
        near = difflib.get_close_matches(service, [each.service for each in routes], n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        fail(HostlaneError(f"service {service}: nobody offers it, and this host does not call it{hint}"), 1)
    _print(route, as_json, lambda: tables.route_tables(route))
    if not route.candidates:
        sys.exit(1)


def ask_control(config: str | None, socket: str | None, question: Callable[[ControlClient], Awaitable[T]]) -> T:
    """The answer of the control server; exit 1 with one line when it refuses, or does not answer."""
    import trio

    from control.api.client import ControlClient

    place = _place(config, socket, only_control=True)

    async def ask() -> T:
        async with ControlClient([f"unix:{place}"]) as client:
            return await question(client)

    try:
        return trio.run(ask)
    except HostlaneError as error:
        fail(error, 1)


def _place(
    config: str | None, socket: str | None, *, only_control: bool = False, only_proxy: bool = False
) -> str:
    """The socket to ask: the control server's, or the proxy's where there is no control server."""
    if config is not None and socket is not None:
        raise click.UsageError("--config and --socket both say whom to ask; use one of them")
    if socket is not None:
        return socket
    servers, proxies = DEFAULT_CONTROL_RUN_DIR, DEFAULT_RUN_DIR
    try:
        if config is not None:
            servers = proxies = admin.run_dir_from_config(config)
    except admin.BadConfig as error:
        fail(error, 2)
    control = os.path.join(servers, CONTROL_SOCKET)
    proxy = os.path.join(proxies, ADMIN_SOCKET)
    if only_control or (not only_proxy and os.path.lexists(control) and not (_is_stale(control) and _is_there(proxy))):
        return control
    return proxy


def _is_proxys(place: str) -> bool:
    """Whether a proxy listens there, and not a control server: the socket's name says so, but for one that the user has
    named (telemetry.socket).
    """
    if (name := os.path.basename(place)) in (ADMIN_SOCKET, CONTROL_SOCKET):
        return name == ADMIN_SOCKET
    try:
        admin.ask(place, "/status", Status)
    except admin.NoAnswer:
        return False
    return True


def _is_there(path: str) -> bool:
    return os.path.lexists(path) and not _is_stale(path)


def _is_stale(path: str) -> bool:
    """Whether certainly nobody listens there, such as after a control server that was killed. What cannot be told, for
    want of permission, say, is for whoever asks there.
    """
    with socketmodule.socket(socketmodule.AF_UNIX, socketmodule.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return True
        except OSError:
            return False
    return False


def _print(found: Any, as_json: bool, render: Callable[[], list[Table]]) -> None:
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        live.show(render())
