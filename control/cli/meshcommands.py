"""``hostlane token | revoke | ca``: who may be in the mesh, as the control server on this machine decides."""

from __future__ import annotations

import click
import msgspec

from control.api import mesh
from control.base.suggest import SuggestingGroup
from control.cli import meshtables
from control.cli.whom import as_json, ask_control, asks, told


@click.group(cls=SuggestingGroup)
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
    told(found, as_json, lambda: [meshtables.tokens_table(found)])


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


@click.group(cls=SuggestingGroup)
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
    told(found, as_json, lambda: [meshtables.ca_table(found)])


@ca.command("add")
@asks("control server")
@as_json
def ca_add(config: str | None, socket: str | None, as_json: bool) -> None:
    """A new CA joins the bundle that hosts trust; the old one goes on issuing."""
    found = ask_control(config, socket, lambda client: client.rotate("add"))
    told(found, as_json, lambda: [meshtables.ca_table(found)])


@ca.command("activate")
@asks("control server")
@as_json
def ca_activate(config: str | None, socket: str | None, as_json: bool) -> None:
    """The new CA issues; every host renews its certificate now."""
    found = ask_control(config, socket, lambda client: client.rotate("activate"))
    told(found, as_json, lambda: [meshtables.ca_table(found)])


@ca.command("drop")
@click.option("--force", is_flag=True, help="Also while certificates of the old CA are valid; their hosts are cut off.")
@asks("control server")
@as_json
def ca_drop(force: bool, config: str | None, socket: str | None, as_json: bool) -> None:
    """The CA that does not issue any more leaves the bundle."""
    found = ask_control(config, socket, lambda client: client.rotate("drop", force=force))
    told(found, as_json, lambda: [meshtables.ca_table(found)])
