"""``hostlane cdi``."""

from __future__ import annotations

import os

import click

from control.base.suggest import SuggestingGroup
from control.base.terminal import fail, reported

A_DIRECTORY = click.Path(file_okay=False, readable=False)
in_directory = click.option(
    "--directory",
    metavar="DIRECTORY",
    type=A_DIRECTORY,
    default="/etc/cdi",
    show_default=True,
    help="Where the engine looks for CDI files.",
)


@click.group(cls=SuggestingGroup)
def cdi() -> None:
    """A hook that has containers start when the door is ready.

    What they use is there before their first instruction then. Those have it that name the device hostlane/door=ready
    (docs/containers.md).
    """


@cdi.command()
@in_directory
@click.option(
    "--door",
    metavar="DIRECTORY",
    type=A_DIRECTORY,
    default="/run/hostlane-cdi",
    show_default=True,
    help="door.cdi of the configuration, as the host sees it.",
)
@click.option(
    "--hook",
    metavar="FILE",
    type=click.Path(dir_okay=False, readable=False),
    help="Where on the host the hook is put.  [default: hostlane-hook in --directory]",
)
@click.option("--strict", is_flag=True, help="A container whose listeners cannot be there does not start.")
def install(directory: str, door: str, hook: str | None, strict: bool) -> None:
    """Put the hook and its CDI file on this host, or other ones in their place.

    Containers that start from then on have the hook, if they name the device. As root, with --directory as the host has
    it: in a container, mount it at the same place.
    """
    from control.base.reading.addresses import unix_path
    from proxy.cdi import files, messages, program, spec

    place, socket = os.path.abspath(directory), f"{os.path.abspath(door)}/{messages.SOCKET}"
    try:
        unix_path(door, socket)
    except ValueError as error:
        raise click.UsageError(f"--door: {error}") from None
    path = os.path.abspath(hook) if hook is not None else os.path.join(place, spec.PROGRAM)
    with reported():
        files.install(place, spec.HookCall(path, socket, strict), program.obtain())
    click.echo(f"{os.path.join(place, spec.FILE)}: device {spec.DEVICE}{', strict' if strict else ''}, hook {path}")
    click.echo(f"the door listens for it with: door: {{cdi: {os.path.dirname(socket)}}}")


@cdi.command()
@in_directory
@click.option(
    "--engine",
    metavar="SOCKET",
    type=click.Path(dir_okay=False, readable=False),
    default="/run/docker.sock",
    show_default=True,
    help="Of the engine that is asked which containers name the device.",
)
@click.option("--purge", is_flag=True, help="Take the device away in any case; what names it does not start then.")
def remove(directory: str, engine: str, purge: bool) -> None:
    """Take the hook from this host.

    While containers name the device, or the engine cannot say whether any does, it stays, without hooks: an engine
    starts no container whose device is not there.
    """
    from proxy.cdi import files, naming, spec

    place = os.path.abspath(directory)
    names: list[str] = []
    unknown = ""
    try:
        names = naming.containers_naming(spec.DEVICE, engine)
    except ValueError as error:
        unknown = str(error)
    keep = not purge and bool(names or unknown)
    with reported():
        try:
            files.there(place)
        except FileNotFoundError:
            fail(f"{os.path.join(place, spec.FILE)}: no such file: there is nothing to remove", 1)
        gone = files.remove(place, keep)
    for path in gone:
        click.echo(f"{path}: removed")
    if keep:
        why = f"named by {_shown(names)}" if names else f"the engine does not say who names it ({unknown})"
        click.echo(f"{spec.DEVICE} stays, without hooks: {why}; --purge removes it all the same")
    elif names:
        click.echo(f"without {spec.DEVICE} these do not start again: {_shown(names)}", err=True)


def _shown(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
