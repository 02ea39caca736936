"""``hostlane check``."""

from __future__ import annotations

import os
import sys

import click

from control.base.options import A_FILE
from control.base.reading.addresses import DEFAULT_CONFIG
from control.base.terminal import reported


@click.command()
@click.option("--config", "file", metavar="FILE", type=A_FILE, help="The host's configuration.")
@click.option(
    "--certificate",
    "certificates",
    type=click.Path(exists=True, dir_okay=False, readable=False),
    metavar="FILE",
    multiple=True,
    help="A PEM file to hold against the clock.",
)
@click.option("--only", metavar="GROUP", multiple=True, help="One group of the report; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def check(file: str | None, certificates: tuple[str, ...], only: tuple[str, ...], as_json: bool) -> None:
    """Find out what messages pay on this host, and what is broken.

    Changes nothing. As root it sees more; what it could not see, it says. Without --config it takes the file that the
    unit uses, or if there is none looks at the machine only. Exit 1 if something is wrong.
    """
    import msgspec
    from rich.console import Console

    from proxy.check.diagnose import SUBJECTS, diagnose
    from proxy.check.show import lines
    from proxy.config.schema import load
    from proxy.netdev.leases.addressbook import remembered

    known = [name for name, _ in SUBJECTS]
    if unknown := [name for name in only if name not in known]:
        raise click.UsageError(f"--only {unknown[0]}: found no such group; allowed: {', '.join(known)}")
    if file is None and os.access(DEFAULT_CONFIG, os.R_OK):
        file = DEFAULT_CONFIG
    with reported():
        report = diagnose(remembered(load(file)) if file is not None else None, certificates, only)
    if as_json:
        click.echo(msgspec.json.encode(report))
    else:
        console = Console(highlight=False, soft_wrap=True)
        for line in lines(report):
            console.print(line)
    sys.exit(1 if report.wrong else 0)
