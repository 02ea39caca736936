"""What shells complete beside commands, options and files: the names that the proxy or control server here knows.

Completing never fails and never waits for long: who does not answer has no names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import click
from click.shell_completion import CompletionItem

from control.api import admin, mesh
from control.api.messages import MeshHost, ServiceRoute

T = TypeVar("T")

PATIENCE = 1.0
"""Seconds that somebody who has pressed Tab waits."""

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def services(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Services of the mesh."""
    return _beginning(typed, [each.service for each in _of_proxy(context, "/services", list[ServiceRoute])])


def peers(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """The other hosts that the proxy knows."""
    found = _of_proxy(context, "/hosts", list[MeshHost])
    return _beginning(typed, [each.name for each in found if each.state != "here"])


def hosts(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Hosts that the control server knows."""
    return _beginning(typed, [host.name for host in _of_control(context).hosts])


def _beginning(typed: str, names: Sequence[str]) -> list[CompletionItem]:
    return [CompletionItem(name) for name in sorted(set(names)) if name.startswith(typed)]


def _of_proxy(context: click.Context, path: str, kind: type[T]) -> T:
    try:
        at = admin.socket_of(context.params.get("config"), context.params.get("socket"))
        return admin.ask(at, path, kind, PATIENCE)[0]
    except (admin.NoAnswer, admin.BadConfig):
        return kind()


def _of_control(context: click.Context) -> mesh.MapSnapshot:
    import trio

    from control.api.client import ControlClient
    from control.base.errors import HostlaneError
    from control.cli.whom import place

    nothing = mesh.MapSnapshot(epoch="", revision=0, hosts=())

    async def ask(at: str) -> mesh.MapSnapshot:
        with trio.move_on_after(PATIENCE):
            async with ControlClient([f"unix:{at}"]) as client:
                return await client.hosts()
        return nothing

    try:
        return trio.run(ask, place(context.params.get("config"), context.params.get("socket"), only_control=True))
    except (HostlaneError, click.UsageError, SystemExit):
        return nothing
