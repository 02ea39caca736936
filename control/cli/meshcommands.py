"""``hostlane token | revoke | ca``: who may be in the mesh, as the control server on this machine decides."""

from __future__ import annotations

import os

import click
import msgspec

from control.api import mesh
from control.api.messages import NewToken
from control.api.tokens import parse_untrusted
from control.base.options import A_FILE
from control.base.suggest import SuggestingGroup
from control.base.terminal import fail
from control.base.wholefile import write_file
from control.cli import complete, meshtables
from control.cli.whom import as_json, ask_control, asks, told


@click.group(cls=SuggestingGroup)
def token() -> None:
    """What hosts join the mesh with: one token, one host, once."""


@token.command("create")
@click.option("--host", required=True, metavar="NAME", help="The host that may join with it.")
@click.option("--ttl", default="10m", show_default=True, metavar="DURATION", help="How long it is good for.")
@click.option(
    "--out", metavar="FILE", type=A_FILE, help="Write it to a new file that only this user may read."
)
@click.option(
    "--server", "servers", metavar="HOST:PORT", multiple=True, help="Where the host reaches a control server."
)
@asks("control server")
@as_json
def token_create(
    host: str,
    ttl: str,
    out: str | None,
    servers: tuple[str, ...],
    config: str | None,
    socket: str | None,
    as_json: bool,
) -> None:
    """Print a token. It is not kept, and cannot be shown again.

    It says where the control servers are, unless --server does: at the addresses where they listen. Its id, by which
    `token delete` knows it, and when it expires stand on stderr. Exit 1 if there is none.
    """
    from control.base.reading import addresses, units
    from control.base.reading.times import when

    try:
        known = tuple(addresses.host_port(each).hostport for each in servers)
        request = mesh.TokenRequest(host=units.host_name(host), ttl=units.lifetime(ttl), servers=known)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if out is not None and os.path.lexists(out):
        raise click.UsageError(f"{out} exists; allowed: a new file")
    created = ask_control(config, socket, lambda client: client.create_token(request))
    made = NewToken(
        id=parse_untrusted(created.token).id, host=host, expires=created.expires, token=None if out else created.token,
        file=out,
    )  # fmt: skip
    if out is not None:
        try:
            write_file(os.path.abspath(out), created.token.encode() + b"\n", 0o600, replace=False)
        except OSError as error:
            # Nobody has it: it must not stay good for ten minutes.
            ask_control(config, socket, lambda client: client.delete_token(made.id))
            fail(f"{out}: {(error.strerror or 'cannot be written').lower()}; the token was deleted", 1)
    if as_json:
        click.echo(msgspec.json.encode(made))
        return
    click.echo(f"token {made.id} for host {host}, good once until {when(created.expires)}", err=True)
    click.echo(created.token if out is None else f"written to {out}")


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
@click.argument("host", required=False, shell_complete=complete.hosts)
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
        click.echo(f"{len(done.serials)} certificate{'' if len(done.serials) == 1 else 's'} revoked")


@click.group(cls=SuggestingGroup)
def ca() -> None:
    """The CA of the mesh, and its rotation.

    Exchange it by add, activate, drop, in this order (docs/security.md).
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
