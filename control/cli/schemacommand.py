"""``hostlane schema``: JSON Schemas of the configuration files, for editors."""

from __future__ import annotations

import json

import click

from control.cli.answers import ANSWERS, schema_of


@click.command()
@click.argument("kind", type=click.Choice(["host", "control"]), default="host")
@click.option("--answer", metavar="COMMAND", type=click.Choice(list(ANSWERS)), help="Of what a command prints as JSON.")
def schema(kind: str, answer: str | None) -> None:
    """Print the JSON Schema of a configuration.

    It is a host's or a control server's.

    Editors with a YAML language server take it from the first line of a file:
    # yaml-language-server: $schema=PATH

    With --answer: of what COMMAND prints with --json, such as "hosts" or "token list" (docs/cli.md).
    """
    if answer is not None:
        click.echo(json.dumps(schema_of(answer), indent=1))
        return
    click.echo(text(kind))


def text(kind: str) -> str:
    """The schema as configs/schema has it."""
    from control.base.reading import jsonschema
    from control.base.terminal import imported
    from control.cli.filekinds import KINDS

    found = KINDS[kind]
    title = f"Hostlane: {found.title}"
    return json.dumps(jsonschema.schema_of(imported(found.config), title, found.words), indent=1, ensure_ascii=False)
