"""``hostlane validate``: what is wrong with configuration files, and what they amount to."""

from __future__ import annotations

import os
import sys
from typing import Any

import click
import msgspec

from control.base.errors import ConfigError
from control.base.options import A_FILE
from control.base.reading.addresses import DEFAULT_CONFIG
from control.base.terminal import printable, report


@click.command()
@click.argument("files", metavar="[FILE]...", nargs=-1, type=A_FILE)
@click.option("--effective", is_flag=True, help="Print every value, and where it is from.")
@click.option("--json", "as_json", is_flag=True, help="With --effective: print them as JSON.")
def validate(files: tuple[str, ...], effective: bool, as_json: bool) -> None:
    """Check configuration files and their certificates.

    A file is a host's or a control server's, by what stands in it; without FILE, it is the one that the unit and the
    image use. Everything that is wrong is reported at once. Exit 0 if nothing is, else 2. What only this machine lacks
    (a user, a group, an address) is a warning: the file may be another one's.
    """
    if as_json and not effective:
        raise click.UsageError("--json goes with --effective")
    code = 0
    for file in files or (DEFAULT_CONFIG,):
        try:
            _validate(file, effective, as_json)
        except ConfigError as error:
            code = report([error])
    sys.exit(code)


def _validate(file: str, effective: bool, as_json: bool) -> None:
    """Raises ConfigError."""
    from control.base.reading.effective import as_yaml, values
    from control.base.reading.files import text_of
    from control.base.system.accounts import unknown_accounts
    from control.cli.filekinds import kind_of

    text = text_of(file)
    kind = kind_of(text, file)
    config, document = kind.examined(text, file)
    kind.check_files(config, file)
    for line in unknown_accounts(config):  # the machine that the file is for may know them
        click.echo(f"{click.format_filename(file)}: warning: {printable(line)}", err=True)
    for line in _notes(config):
        click.echo(f"{click.format_filename(file)}: note: {line}", err=True)
    if not effective:
        click.echo(f"{click.format_filename(file)}: ok")
        return
    found = values(config, document, os.path.basename(file))
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        click.echo(f"# {click.format_filename(file)}: {kind.title}")
        click.echo(as_yaml(found))


def _notes(config: Any) -> list[str]:
    """What is not wrong and yet to be known of a configuration."""
    from control.base.reading.serviceaddress import shared

    if getattr(config, "door", None) is None:
        return []
    offered = [name for peer in config.peers.values() for name in peer.services]
    return shared({*config.services, *config.upstreams, *offered})
