"""``hostlane completion``: what shells complete of this command line."""

from __future__ import annotations

import click


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
