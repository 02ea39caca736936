"""``hostlane door``."""

from __future__ import annotations

import sys

import click

from control.base.options import of_a_host
from control.base.terminal import ended_by, report

__all__ = ["door"]


@click.command()
@of_a_host
def door(file: str) -> None:
    """Open what containers' labels ask for, inside them.

    What is opened is handed to this host's proxy (docs/containers.md).
    It runs in the foreground beside the proxy, as root with CAP_SYS_ADMIN and CAP_NET_BIND_SERVICE and nothing else.
    SIGTERM or Ctrl-C ends it: what is open stays open in the proxy.
    """
    from proxy.config.schema import load
    from proxy.errors import ConfigError, HostlaneError

    try:
        config = load(file)
        if config.door is None:
            raise ConfigError([f"{file}: door: missing; allowed: {{}} and the keys of configs/reference.yaml"])
    except HostlaneError as error:
        sys.exit(report([error]))
    import trio

    from control.base.system import logs
    from control.base.system.descriptors import use_all_descriptors
    from proxy.door.door import Door

    logs.configure(config.log.level, config.log.format)
    use_all_descriptors()
    try:
        trio.run(Door(config.door).run)
    except BaseException as error:
        sys.exit(ended_by(error, "door failed"))
