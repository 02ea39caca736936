"""``hostlane completion``: what shells complete of this command line."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from control.base.terminal import fail

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS), required=False)
@click.option("--install", is_flag=True, help="Put it where the shell finds it, for this user or, as root, for all.")
def completion(shell: str | None, install: bool) -> None:
    """Print a completion script for a shell, or install it.

    It completes commands, options and files, and the services and hosts that this machine's proxy or control server
    knows. SHELL is the one of $SHELL if it is left out. Exit 1 if it cannot be written.
    """
    shell = shell or os.path.basename(os.environ.get("SHELL", ""))
    if shell not in SHELLS:
        raise click.UsageError(f"$SHELL says {shell or 'nothing'}; allowed: {', '.join(SHELLS)}, as an argument")
    if not install:
        click.echo(script(shell))
        return
    place = place_of(shell)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(script(shell) + "\n")
    except OSError as error:
        fail(f"{place}: {(error.strerror or 'cannot be written').lower()}", 1)
    click.echo(f"{place}: written; a new {shell} completes hostlane")
    if shell == "zsh" and os.geteuid():
        click.echo(f"if it does not: fpath=({place.parent} $fpath), in ~/.zshrc before compinit", err=True)


def script(shell: str) -> str:
    """What the shell runs."""
    from click.shell_completion import get_completion_class

    from control.cli.main import hostlane

    kind = get_completion_class(shell)
    assert kind is not None
    try:
        return kind(hostlane, {}, "hostlane", "_HOSTLANE_COMPLETE").source()
    except RuntimeError as error:  # click asks bash for its version
        sys.exit(f"hostlane: {error}")


def place_of(shell: str) -> Path:
    """Where the shell looks for it: of all users for root, else of this one."""
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    everybody = os.geteuid() == 0
    return {
        "bash": Path("/etc/bash_completion.d/hostlane") if everybody else data / "bash-completion/completions/hostlane",
        "zsh": Path("/usr/local/share/zsh/site-functions/_hostlane") if everybody else data / "zsh/_hostlane",
        "fish": Path("/etc/fish/completions/hostlane.fish") if everybody else config / "fish/completions/hostlane.fish",
    }[shell]
