"""``hostlane door`` and ``hostlane attach-service``."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import click

from control.base.options import of_a_host
from control.base.system import loading
from control.base.terminal import ended_by, fail, report

if TYPE_CHECKING:
    from proxy.config.schema import Config, DoorConfig

__all__ = ["attach_service", "door"]


alive = click.option("--alive", is_flag=True, help="Say whether one runs here, by the exit code, and run none.")


@click.command()
@alive
@of_a_host
def door(file: str, alive: bool) -> None:
    """Open what containers' labels ask for, inside them.

    What is opened is handed to this host's proxy (docs/containers.md).
    It runs in the foreground beside the proxy, as root with CAP_SYS_ADMIN and CAP_NET_BIND_SERVICE and nothing else.
    SIGTERM or Ctrl-C ends it: what is open stays open in the proxy.
    """
    if alive:
        from proxy.door.proxies import answers

        return _alive(file, lambda section: answers(section.directory))
    with loading.for_good("structlog", "httpx", "httpcore"):
        from proxy.door.door import Door

    _run(file, lambda config, section: Door(section).run, "door failed")


@click.command("attach-service")
@alive
@of_a_host
def attach_service(file: str, alive: bool) -> None:
    """Give containers interfaces as their labels ask.

    What `hostlane net attach` gives, at every start of a container with the label hostlane.attach (docs/containers.md).
    It runs in the foreground, in the host's network namespace, as root with CAP_NET_ADMIN and CAP_SYS_ADMIN; and
    CAP_DAC_OVERRIDE and CAP_CHOWN, where addresses are leased, as leases lie in the proxy's state_dir.
    SIGTERM or Ctrl-C ends it: containers keep what they have.
    """
    if alive:
        from proxy.door.presence import is_held

        return _alive(file, lambda section: is_held(section.directory))
    with loading.for_good("structlog", "httpx", "httpcore"):
        from proxy.door.attaching import AttachService

    _run(file, lambda config, section: AttachService(config, section).run, "attach service failed")


def _load(file: str) -> tuple[Config, DoorConfig]:
    from proxy.config.schema import load
    from proxy.errors import ConfigError, HostlaneError

    try:
        config = load(file)
        if config.door is None:
            raise ConfigError([f"{file}: door: missing; allowed: {{}} and the keys of configs/reference.yaml"])
    except HostlaneError as error:
        sys.exit(report([error]))
    return config, config.door


def _alive(file: str, asked: Callable[[DoorConfig], bool]) -> None:
    _, section = _load(file)
    if not asked(section):
        fail(f"nobody answers in {section.directory}", 1)


def _run(file: str, made: Callable[[Config, DoorConfig], Callable[[], Awaitable[None]]], failed: str) -> None:
    """Run one of them."""
    config, section = _load(file)
    import trio

    from control.base.system import logs
    from control.base.system.descriptors import use_all_descriptors
    from proxy.door import mounts

    logs.configure(config.log.level, config.log.format)
    use_all_descriptors()
    mounts.warn(section)
    try:
        trio.run(made(config, section))
    except BaseException as error:
        sys.exit(ended_by(error, failed))
