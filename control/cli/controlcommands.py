"""``hostlane control``: run a control server, set one up, check its configuration."""

from __future__ import annotations

import gc
import os
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from control.base.errors import ConfigError, StartError
from control.base.options import A_FILE
from control.base.reading.addresses import DEFAULT_CONTROL_CONFIG
from control.base.suggest import SuggestingGroup
from control.base.system import loading
from control.base.terminal import ended_by, report
from control.base.wholefile import write_new

if TYPE_CHECKING:
    from control.base.system.systemd import SystemdService
    from control.server.config import Config

GARBAGE = 10_000
"""More objects than there were, until Python's collector looks for garbage among them (its own default: 700)."""


@click.group(cls=SuggestingGroup, invoke_without_command=True)
@click.option("--config", "file", metavar="FILE", type=A_FILE,
              help=f"The control server's configuration.  [default: {DEFAULT_CONTROL_CONFIG}]")  # fmt: skip
@click.option("--check", is_flag=True, help="Check the configuration and its certificates, and do not start.")
@click.pass_context
def control(context: click.Context, file: str | None, check: bool) -> None:
    """Run a control server in the foreground.

    It knows who is where, and who may join.

    SIGTERM or Ctrl-C ends it. Exit 2 if the configuration is wrong or this machine cannot start it.
    """
    if context.invoked_subcommand is not None:
        if file is not None or check:
            raise click.UsageError(f"--config and --check stand behind {context.invoked_subcommand}, not before it")
        return
    if file is None:
        file = DEFAULT_CONTROL_CONFIG
        if not os.path.lexists(file):
            raise click.UsageError(f"{file} is not there, and no --config; `hostlane control init` writes a first one")
    config = _loaded(file)
    if check:
        try:
            check_files(config, file)
        except ConfigError as error:
            sys.exit(report([error]))
        click.echo(f"{click.format_filename(file)}: ok")
        return
    sys.exit(serve(config))


@control.command()
@click.option("--config", "file", metavar="FILE", type=A_FILE, default=DEFAULT_CONTROL_CONFIG, show_default=True,
              help="Written if it does not exist.")  # fmt: skip
@click.option("--name", help="Of this control server, for a new FILE; the machine's unless given.")
@click.option("--listen", metavar="IP:PORT", help="Where hosts' requests arrive, for a new FILE.")
@click.option("--mesh", help="Name of the mesh, for a new FILE; hostlane unless given.")
@click.option("--service", is_flag=True, help="Have systemd run the server, now and whenever the machine starts.")
def init(file: str, name: str | None, listen: str | None, mesh: str | None, service: bool) -> None:
    """Set up a mesh: the configuration, the CA with its key, and the directories.

    Nothing that exists is changed. With several control servers, do it on one and copy state_dir/ca to the others.
    """
    from control.base.system.systemd import SystemdService, command
    from control.cli.daemon import CONTROL

    unit = SystemdService(CONTROL, os.path.abspath(file), command())
    try:
        if os.path.lexists(file):
            if name or listen or mesh:
                raise click.UsageError(f"{file} exists, and says what --name, --listen and --mesh would")
            config = _loaded(file)
        else:
            text, config = _first_config(file, name, listen, mesh)
        if service:
            unit.check(_paths(config))
        if not os.path.lexists(file):
            _write_config(file, text)
        from control.server.serve import keys_of

        keys = keys_of(config)
        for directory in {keys.directory, *_store_directory(config)}:
            _make_directory(directory)
        root = keys.create(config.mesh, time.time())
    except StartError as error:
        sys.exit(report([error]))
    place = config.ca_keys[0] if config.ca_keys else keys.directory
    click.echo(f"CA {root.id} of mesh {config.mesh}: its key is in {place}; keep a copy in a safe place")
    option = "" if file == DEFAULT_CONTROL_CONFIG else f" --config {click.format_filename(file)}"
    if service:
        _run_by_systemd(unit, config)
    else:
        click.echo(f"next: hostlane control{option}")
    click.echo(f"then, for each host: hostlane token create --host NAME{option}")


def _paths(config: Config) -> dict[str, str]:
    """What the server writes, by the keys that say where."""
    store = {} if config.store_file is None else {"store.sqlite.path": config.store_file}
    return {"state_dir": config.state_dir, "run_dir": config.run_dir, **store}


def _run_by_systemd(unit: SystemdService, config: Config) -> None:
    """Exits if it does not run then; everything else that `init` makes is there."""
    try:
        unit.install()
        unit.own(config.state_dir)
        unit.start()
    except StartError as error:
        click.echo("the mesh is set up, but its control server does not run:", err=True)
        sys.exit(report([error]))
    click.echo("service: hostlane-control runs (systemctl status hostlane-control)")


@control.command()
@click.argument("file", type=click.Path(dir_okay=False, resolve_path=True))
@click.option("--config", metavar="FILE", type=A_FILE, help="The configuration that the server runs with.")
@click.option("--socket", metavar="PATH", type=A_FILE, help="The control server's socket.")
def backup(file: str, config: str | None, socket: str | None) -> None:
    """Have the control server that runs here write a copy of its store to FILE, which must not exist.

    The server writes it, as its own user, for that user alone to read. FILE is there whole or not at all.

    With etcd, etcdctl snapshot save does this. Exit 1 if there is no copy.
    """
    from control.api import mesh
    from control.cli.whom import ask_control

    ask_control(config, socket, lambda client: client.backup(mesh.BackupRequest(path=file)))


def check_files(config: Config, file: str) -> None:
    """Read the keys and certificates that a control server with this file would start with. Raises ConfigError."""
    from control.server import serve

    try:
        serve.check_files(config)
    except StartError as error:
        raise ConfigError([f"{file}: {error}"]) from None


def serve(config: Config) -> int:
    """Run the control server until it is told to stop. Returns the exit code; what went wrong is on stderr by then."""
    with loading.for_good("structlog", "httpx", "httpcore"):
        import trio

        from control.base.system import logs
        from control.base.system.descriptors import use_all_descriptors
        from control.server import serve as server

    logs.configure(config.log.level, config.log.format)
    use_all_descriptors()
    # Connections stay by the thousand, too: the collector took a fifth of the server's time when 2,000 hosts came, a
    # quarter of a second at a time, and found next to nothing.
    gc.set_threshold(GARBAGE)
    try:
        trio.run(server.run, config)
    except BaseException as error:
        return ended_by(error, "control server failed")
    return 0


def _loaded(file: str) -> Config:
    from control.server.config import load

    try:
        return load(file)
    except ConfigError as error:
        sys.exit(report([error]))


def _first_config(file: str, name: str | None, listen: str | None, mesh: str | None) -> tuple[str, Config]:
    """The text of a configuration that is not there yet, and what it says."""
    from control.server.config import parse

    if listen is None:
        raise click.UsageError(f"{file} does not exist; --listen, and --name and --mesh, say what to write there")
    lines = [
        "# A control server; configs/control-reference.yaml has every key.",
        f"name: {name or socket.gethostname().partition('.')[0]}",
        f"listen: {listen}",
        *([f"mesh: {mesh}"] if mesh else []),
    ]
    text = "\n".join(lines) + "\n"
    try:
        return text, parse(text, "options")
    except ConfigError as error:
        raise click.UsageError(error.problems[0].partition(": ")[2]) from None


def _write_config(file: str, text: str) -> None:
    try:
        write_new(file, text)
    except OSError as error:
        raise StartError(f"cannot write {file}: {(error.strerror or 'failed').lower()}") from None


def _store_directory(config: Config) -> list[str]:
    return [] if config.store_file is None else [os.path.dirname(config.store_file)]


def _make_directory(path: str) -> None:
    """For this user alone: it will hold keys, or all that the control plane knows."""
    try:
        Path(path).mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(f"cannot make directory {path}: {(error.strerror or 'failed').lower()}") from None
