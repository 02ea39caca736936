"""``hostlane schema``: JSON Schemas of the configuration files, for editors."""

from __future__ import annotations

import json

import click


@click.command()
@click.argument("kind", type=click.Choice(["host", "control"]), default="host")
def schema(kind: str) -> None:
    """Print the JSON Schema of a configuration.

    It is a host's or a control server's.

    Editors with a YAML language server take it from the first line of a file:
    # yaml-language-server: $schema=PATH
    """
    click.echo(text(kind))


def text(kind: str) -> str:
    """The schema as configs/schema has it."""
    from control.base.reading.jsonschema import schema_of
    from control.base.terminal import imported
    from control.cli.filekinds import KINDS

    found = KINDS[kind]
    title = f"Hostlane: {found.title}"
    return json.dumps(schema_of(imported(found.config), title, found.words), indent=1, ensure_ascii=False)
