"""The command ``hostlane``: a table of commands, each imported when it is called.

The table holds strings, so that this package imports nothing of ``proxy`` and nobody waits for what is not used.
Exit codes everywhere: 0 fine, 1 the thing asked about is not fine, 2 usage or configuration.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

import click

from control.base.errors import HostlaneError
from control.base.suggest import SuggestingGroup
from control.base.terminal import imported, report, write_anything
from control.base.version import VERSION

COMMANDS = {
    "proxy": "proxy.commands:proxy",
    "join": "proxy.setup.commands:join",
    "control": "control.cli.controlcommands:control",
    "door": "proxy.door.commands:door",
    "attach-service": "proxy.door.commands:attach_service",
    "cdi": "proxy.cdi.commands:cdi",
    "validate": "control.cli.validate:validate",
    "schema": "control.cli.schemacommand:schema",
    "status": "control.cli.commands:status",
    "health": "control.cli.commands:health",
    "hosts": "control.cli.hostcommands:hosts",
    "services": "control.cli.hostcommands:services",
    "links": "control.cli.commands:links",
    "streams": "control.cli.streamcommand:streams",
    "call": "control.cli.callcommand:call",
    "edges": "control.cli.edgecommand:edges",
    "tap": "control.cli.tapcommand:tap",
    "top": "control.cli.topcommand:top",
    "reload": "control.cli.orders:reload",
    "drain": "control.cli.orders:drain",
    "check": "proxy.check.commands:check",
    "explain": "proxy.explain.commands:explain",
    "net": "proxy.netdev.commands:net",
    "pool": "proxy.pool.commands:pool",
    "token": "control.cli.meshcommands:token",
    "revoke": "control.cli.meshcommands:revoke",
    "ca": "control.cli.meshcommands:ca",
    "certificates": "control.cli.certificatecommands:certificates",
    "support": "control.cli.support:support",
    "version": "control.cli.version:version",
    "completion": "control.cli.completion:completion",
    "demo": "proxy.commands:demo",
}
"""Name: module and attribute of its click command, in the order of ``--help``."""
CORE = "proxy.core.finder:core"
"""What says whether a proxy's core would run compiled."""

NOT_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What standard output says when the file behind it takes no more. (A pipe that nobody reads is click's.)"""
DEBUG_VARIABLE = "HOSTLANE_DEBUG"
"""Set in the environment, it lets the traceback of a bug through to the terminal."""


class LazyGroup(SuggestingGroup):
    """A click group that imports a command when it is needed, as click's documentation describes."""

    def __init__(self, *args: Any, lazy: dict[str, str], **options: Any) -> None:
        super().__init__(*args, **options)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._lazy:
            return None
        command = imported(self._lazy[cmd_name])
        assert isinstance(command, click.Command)
        return command


def _version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked:
        click.echo(f"hostlane {VERSION} (core: {imported(CORE)()})")
        ctx.exit()


@click.group(cls=LazyGroup, lazy=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_version,
    help="Show the version, and what the core runs as: compiled or python.",
)
def hostlane() -> None:
    """One proxy per host: containers talk over Unix sockets, hosts over a few long-lived links."""


def main() -> None:
    """Run the command line. Exits the process; what nobody expected is one line on stderr too."""
    write_anything()
    try:
        hostlane(prog_name="hostlane")
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        if isinstance(error, HostlaneError):  # on the way to a command: the proxy's modules do not fit together, say
            sys.exit(report([error]))
        if isinstance(error, OSError) and error.errno in NOT_WRITTEN:
            # What is still in the buffer must not fail once more when Python ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            click.echo(f"hostlane: cannot write: {os.strerror(error.errno or 0).lower()}", err=True)
        else:
            what = " ".join(f"{type(error).__name__}: {error}".split())
            click.echo(f"hostlane: internal error, {what} ({DEBUG_VARIABLE}=1 shows where)", err=True)
        sys.exit(1)
