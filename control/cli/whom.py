"""Whom a command asks: the control server on this machine, or its proxy where there is none."""

from __future__ import annotations

import os
import socket as socketmodule
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from control.api import admin
from control.api.messages import Status
from control.base.errors import HostlaneError
from control.base.grid import Block, show
from control.base.options import A_FILE
from control.base.reading.addresses import ADMIN_SOCKET, CONTROL_SOCKET, DEFAULT_CONTROL_RUN_DIR
from control.base.terminal import fail

if TYPE_CHECKING:
    from control.api.client import ControlClient

T = TypeVar("T")


def asks(what: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options that say who is asked."""

    def options(command: Callable[..., None]) -> Callable[..., None]:
        command = click.option("--socket", metavar="PATH", type=A_FILE, help=f"The {what}'s socket.")(command)
        said = f"The configuration that the {what} runs with."
        return click.option("--config", metavar="FILE", type=A_FILE, help=said)(command)

    return options


as_json = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
watching = click.option("--watch", is_flag=True, help="Go on showing what changes, until Ctrl-C.")


def ask_control(config: str | None, socket: str | None, question: Callable[[ControlClient], Awaitable[T]]) -> T:
    """The answer of the control server; exit 1 with one line when it refuses, or does not answer."""
    import trio

    from control.api.client import ControlClient

    asked = place(config, socket, only_control=True)

    async def ask() -> T:
        async with ControlClient([f"unix:{asked}"]) as client:
            return await question(client)

    try:
        return trio.run(ask)
    except HostlaneError as error:
        fail(error, 1)


def place(
    config: str | None, socket: str | None, *, only_control: bool = False, only_proxy: bool = False
) -> str:
    """The socket to ask: the control server's, or the proxy's where there is no control server."""
    if config is not None and socket is not None:
        raise click.UsageError("--config and --socket both say whom to ask; use one of them")
    if socket is not None:
        return socket
    servers = DEFAULT_CONTROL_RUN_DIR
    try:
        if config is not None:
            servers = proxies = admin.run_dir_from_config(config)
        else:
            proxies = admin.usual_run_dir()
    except admin.BadConfig as error:
        fail(error, 2)
    control = os.path.join(servers, CONTROL_SOCKET)
    proxy = os.path.join(proxies, ADMIN_SOCKET)
    if only_control or (not only_proxy and os.path.lexists(control) and not (_is_stale(control) and _is_there(proxy))):
        return control
    return proxy


def is_proxys(path: str) -> bool:
    """Whether a proxy listens there, and not a control server: the socket's name says so, but for one that the user has
    named (telemetry.socket).
    """
    if (name := os.path.basename(path)) in (ADMIN_SOCKET, CONTROL_SOCKET):
        return name == ADMIN_SOCKET
    try:
        admin.ask(path, "/status", Status)
    except admin.NoAnswer:
        return False
    return True


def _is_there(path: str) -> bool:
    return os.path.lexists(path) and not _is_stale(path)


def _is_stale(path: str) -> bool:
    """Whether certainly nobody listens there, such as after a control server that was killed. What cannot be told, for
    want of permission, say, is for whoever asks there.
    """
    with socketmodule.socket(socketmodule.AF_UNIX, socketmodule.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return True
        except OSError:
            return False
    return False


def told(found: Any, as_json: bool, render: Callable[[], Sequence[Block]]) -> None:
    """Print an answer: as JSON, or as tables."""
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        show(render())
