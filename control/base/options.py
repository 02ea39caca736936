"""Options that several commands have."""

from __future__ import annotations

import click

from control.base.reading import units
from control.base.reading.addresses import DEFAULT_CONFIG

A_FILE = click.Path(readable=False)
"""A value that shells complete. Whether it can be read, whoever reads it says, in a line."""

of_a_host = click.option(
    "--config",
    "file",
    metavar="FILE",
    type=A_FILE,
    default=DEFAULT_CONFIG,
    show_default=True,
    help="The host's configuration.",
)


def seconds(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """``"500ms"`` to 0.5, as a callback. Raises BadParameter."""
    try:
        return units.duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
