"""``hostlane streams``: the open streams, those that one looks for, or counted by what they have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click
import msgspec

from control.api import admin
from control.api.messages import StreamGroup, StreamInfo
from control.base.grid import Block
from control.cli import complete, live, tables
from control.cli.commands import asks_a_proxy, socket_of, watched

FIELDS = ("service", "direction", "peer", "link", "state", "uid", "pid")
"""What streams may be counted by."""
SORTS: dict[str, Callable[[StreamInfo], float]] = {
    "age": lambda stream: stream.age_s,
    "sent": lambda stream: stream.bytes_sent,
    "received": lambda stream: stream.bytes_received,
    "buffered": lambda stream: stream.buffered,
}


@click.command()
@click.option("--service", metavar="NAME", shell_complete=complete.services, help="Only of this service.")
@click.option("--peer", metavar="HOST", shell_complete=complete.peers, help="Only with this host.")
@click.option("--direction", type=click.Choice(["outbound", "inbound", "local"]), help="Only these.")
@click.option("--state", metavar="STATE", help="Only in this state (open, waiting, ...).")
@click.option("--uid", type=int, metavar="UID", help="Only of callers of this user.")
@click.option("--pid", type=int, metavar="PID", help="Only of this process.")
@click.option("--by", type=click.Choice(FIELDS), multiple=True, help="Count them by this; may be repeated.")
@click.option("--sort", type=click.Choice([*SORTS]), help="Those with most of it first.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="So many rows at most.")
@asks_a_proxy
@watched
def streams(config: str | None, socket: str | None, as_json: bool, watch: bool, **wanted: Any) -> None:
    """Show the open streams.

    The uid and pid are of the local caller, where it came through a Unix socket of this host.
    """
    at = socket_of(config, socket)

    def look() -> tuple[list[StreamInfo] | list[StreamGroup], bytes]:
        found, raw = admin.ask(at, "/streams", list[StreamInfo])
        if not any(value not in (None, ()) for value in wanted.values()):
            return found, raw
        chosen = select(found, **wanted)
        return chosen, msgspec.json.encode(chosen)

    live.tell(look, watch, as_json, lambda found: blocks(found, wanted["by"]))


def select(
    found: Sequence[StreamInfo], by: Sequence[str] = (), sort: str | None = None, limit: int | None = None, **only: Any
) -> list[StreamInfo] | list[StreamGroup]:
    """The streams that are all of `only`, in this order; or counted `by` what they have in common, most first."""
    chosen = [
        each for each in found if all(value is None or getattr(each, name) == value for name, value in only.items())
    ]
    if sort is not None:
        chosen.sort(key=SORTS[sort], reverse=True)
    if not by:
        return chosen[:limit]
    groups: dict[tuple[Any, ...], list[StreamInfo]] = {}
    for each in chosen:
        groups.setdefault(tuple(getattr(each, name) for name in by), []).append(each)
    counted = [_group(dict(zip(by, key, strict=True)), each) for key, each in groups.items()]
    if sort is None:
        counted.sort(key=lambda group: group.streams, reverse=True)
    return counted[:limit]


def blocks(found: Sequence[StreamInfo] | Sequence[StreamGroup], by: Sequence[str]) -> list[Block]:
    """As a table."""
    if by:
        return [tables.groups_table([each for each in found if isinstance(each, StreamGroup)], by)]
    return [tables.streams_table([each for each in found if isinstance(each, StreamInfo)])]


def _group(by: dict[str, str | int | None], streams: Sequence[StreamInfo]) -> StreamGroup:
    return StreamGroup(
        by=by,
        streams=len(streams),
        bytes_sent=sum(each.bytes_sent for each in streams),
        bytes_received=sum(each.bytes_received for each in streams),
        buffered=sum(each.buffered for each in streams),
        oldest_s=max(each.age_s for each in streams),
    )
