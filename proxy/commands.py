"""``hostlane proxy | demo``. Whatever is slow to import is imported by the command that needs it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from control.base.options import of_a_host
from control.base.reading.addresses import HANDOVER_SOCKET
from control.base.system import loading
from control.base.terminal import ended_by, report
from proxy.errors import ConfigError, HostlaneError, StartError

if TYPE_CHECKING:
    from proxy.config.schema import Config

NAMES_S = 3.0
"""Seconds that ``validate`` waits for the addresses of services' names, of all together."""
WITH_A_CONTROL_PLANE = ("httpx", "httpcore", "proxy.mesh.join", "proxy.mesh.membership")
"""What only a proxy in such a mesh loads, which does so later than the rest otherwise."""


@click.command()
@of_a_host
@click.option(
    "--takeover", is_flag=True, help="Take the place of the proxy that runs in the same run_dir, if one does."
)
def proxy(file: str, takeover: bool) -> None:
    """Run this host's proxy in the foreground.

    SIGTERM or Ctrl-C ends it: new calls are refused, open streams may finish, a second signal does not wait for them.
    SIGHUP: the configuration file is read and applied again (hostlane reload does the same, and shows what changed).
    SIGUSR2: the same command is started again with --takeover, which loses neither a connection nor a stream.
    """
    from proxy.config.schema import load

    try:
        config = load(file)
        if takeover and os.path.exists(f"{config.run_dir}/{HANDOVER_SOCKET}"):  # else it is a plain start
            _check_room()
    except HostlaneError as error:
        sys.exit(report([error]))
    sys.exit(serve(config, os.path.abspath(file), takeover))


def _check_room() -> None:
    """Raise StartError if the cgroup has no room for one more process: the kernel would kill one, mostly the one that
    is to be taken over, with all its streams. This comes before what is large is imported.
    """
    from control.base.system.cgroup import memory_left, memory_limit, own_memory
    from proxy.config.memory import BASE, MIB

    limit = memory_limit()
    left = None if limit is None else memory_left(limit)
    if limit is None or left is None:
        return
    room = max(0, left + own_memory())
    if room < BASE:
        raise StartError(
            f"--takeover: {limit.file} allows {limit.bytes / MIB:.4g} MiB, of which {room / MIB:.3g} MiB are left, and "
            f"one more proxy takes {BASE // MIB} MiB; nothing was changed: restart the proxy instead, or raise the "
            "limit (docs/memory.md)"
        )


def check_files(config: Config, file: str) -> None:
    """Look at the certificates that a file names, and at names that lead in a circle. Raises ConfigError; what this
    machine lacks, and the one that the file is for may have, is a warning.
    """
    _check_certificates(config, file)
    _check_names(config, file)
    _warn_of_sources(config, file)


def _check_certificates(config: Config, file: str) -> None:
    from proxy.links.keyring import Keyring

    if config.links.tls is None:
        return  # what the control plane has issued, or will, is not this file's
    try:
        Keyring.from_config(config)
    except ConfigError as error:
        raise ConfigError([f"{file}: {problem}" for problem in error.problems]) from None


def _check_names(config: Config, file: str) -> None:
    from proxy.config.placecheck import loops_by_name

    if problems := loops_by_name(config, NAMES_S):
        raise ConfigError([f"{file}: {problem}" for problem in problems])


def _warn_of_sources(config: Config, file: str) -> None:
    from proxy.config.placecheck import missing_sources

    for name, source in missing_sources(config):
        text = f"services.{name}.source: no interface of this machine has {source}, from which connections are to come"
        click.echo(f"{click.format_filename(file)}: warning: {text}", err=True)


@click.command()
def demo() -> None:
    """Two hosts join a mesh, one has a Redis: measure it.

    As root in network namespaces, otherwise on loopback. Cleans up after itself, also after Ctrl-C.
    """
    from proxy.demo import runner

    sys.exit(runner.main())


def serve(config: Config, file: str, takeover: bool = False) -> int:
    """Run the proxy until it is told to stop. Returns the exit code; what went wrong is on stderr by then.

    Args:
        file: the configuration's, to be read again on SIGHUP.
        takeover: as `process.run` takes it.
    """
    with loading.for_good("structlog", *(WITH_A_CONTROL_PLANE if config.control is not None else ())):
        import trio

        from control.base.system import logs
        from control.base.system.descriptors import use_all_descriptors
        from proxy.agent import process

    logs.configure(config.log.level, config.log.format)
    use_all_descriptors()
    try:
        trio.run(process.run, config, file, takeover)
    except BaseException as error:
        return ended_by(error, "proxy failed")
    return 0
