"""``hostlane door`` and ``hostlane attach-service``."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import click

from control.base.options import of_a_host
from control.base.terminal import ended_by, report

if TYPE_CHECKING:
    from proxy.config.schema import Config, DoorConfig

__all__ = ["attach_service", "door"]


@click.command()
@of_a_host
def door(file: str) -> None:
    """Open what containers' labels ask for, inside them.

    What is opened is handed to this host's proxy (docs/containers.md).
    It runs in the foreground beside the proxy, as root with CAP_SYS_ADMIN and CAP_NET_BIND_SERVICE and nothing else.
    SIGTERM or Ctrl-C ends it: what is open stays open in the proxy.
    """
    from proxy.door.door import Door

    _run(file, lambda config, section: Door(section).run, "door failed")


@click.command("attach-service")
@of_a_host
def attach_service(file: str) -> None:
    """Give containers interfaces as their labels ask.

    What `hostlane net attach` gives, at every start of a container with the label hostlane.attach (docs/containers.md).
    It runs in the foreground, in the host's network namespace, as root with CAP_NET_ADMIN and CAP_SYS_ADMIN and nothing
    else. SIGTERM or Ctrl-C ends it: containers keep what they have.
    """
    from proxy.door.attaching import AttachService

    _run(file, lambda config, section: AttachService(config, section).run, "attach service failed")


def _run(file: str, made: Callable[[Config, DoorConfig], Callable[[], Awaitable[None]]], failed: str) -> None:
    """Run one of them."""
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

    logs.configure(config.log.level, config.log.format)
    use_all_descriptors()
    try:
        trio.run(made(config, config.door))
    except BaseException as error:
        sys.exit(ended_by(error, failed))
