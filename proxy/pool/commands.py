"""``hostlane pool``: choosing the pool's settings from what has happened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from control.base.options import A_FILE
from control.base.suggest import SuggestingGroup
from control.base.terminal import fail

if TYPE_CHECKING:
    from control.base.grid import Grid
    from proxy.pool.replay import ReplayOutcome, ReplayTrace
    from proxy.pool.ttl import TtlTerms

FIXED = (30.0, 60.0, 300.0, 900.0)
"""Seconds; the TTLs that people set, from HAProxy's examples to nginx's 60 s and the 900 s of IPVS."""
PRICES = (1.0, 10.0, 100.0)
"""Milliseconds of waiting for an hour idle: around the default of pool.idle_price."""


class ReplayRow(msgspec.Struct, frozen=True, kw_only=True):
    """One setting and what a replay with it gave. ``price_ms`` is pool.idle_price, None for a fixed TTL."""

    setting: str
    price_ms: float | None
    warm: int
    ahead: int
    waited: int
    handshakes: int
    link_seconds: float
    links: float
    """Mean number of links that are up."""


@click.group(cls=SuggestingGroup)
def pool() -> None:
    """Links that are kept for the next call, and for how long."""


@pool.command()
@click.argument("file", metavar="FILE", type=A_FILE)
@click.option("--handshake", default=1.0, show_default=True, help="Milliseconds that a handshake takes.")
@click.option("--min", "low", default=1.0, show_default=True, help="pool.idle_min, in seconds.")
@click.option("--max", "high", default=3600.0, show_default=True, help="pool.idle_max, in seconds.")
@click.option("--ahead/--no-ahead", default=True, help="Open links ahead of uses that come by the clock, or never.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
def replay(file: str, handshake: float, low: float, high: float, ahead: bool, as_json: bool) -> None:
    """Show what other settings would have made of a recorded history.

    FILE is what pool.record has written ("-": standard input). For each fixed TTL the learnt one is set, by its
    one knob (pool.idle_price), to hold links for as long; further rows show the learnt TTL at some prices.
    """
    from proxy.pool.recorded import LONGEST_LINE, BadLine, read
    from proxy.pool.replay import ReplayTrace
    from proxy.pool.ttl import TtlTerms

    if not (handshake > 0 and 0 <= low <= high):
        raise click.UsageError("allowed: --handshake above 0, --min from 0, --max from --min")
    try:
        with click.open_file(file, "rb") as lines:
            trace = ReplayTrace(read(iter(lambda: lines.readline(LONGEST_LINE), b""), file))
    except BadLine as error:
        fail(error, 2)
    except OSError as error:
        fail(f"{file}: {(error.strerror or 'not readable').lower()}", 2)
    if not trace.uses:
        fail(f"{file}: found no use; allowed: at least one line", 2)
    rows = compare(trace, TtlTerms(handshake / 1000, 0.0, low, high, ahead))
    if as_json:
        click.echo(msgspec.json.encode(rows))
    else:
        _print(trace, rows)


def compare(trace: ReplayTrace, terms: TtlTerms) -> list[ReplayRow]:
    """The table's rows: each fixed TTL, the learnt one at the same link-seconds, and the learnt one at some prices."""
    from proxy.pool.replay import PriceSearch, fixed
    from proxy.pool.replay import replay as play

    search, rows = PriceSearch(trace, terms), []
    for ttl in FIXED:
        outcome = play(trace, fixed(ttl))
        rows.append(_row(f"fixed {ttl:.0f} s", None, outcome, trace))
        if (found := search.matching(outcome.link_seconds)) is not None:
            rows.append(_row(f"learnt, as long as {ttl:.0f} s", found[0], found[1], trace))
    for price in PRICES:
        seconds = price / 3.6e6
        rows.append(_row(f"learnt at {price:g} ms", seconds, search.at(seconds), trace))
    return rows


def _row(setting: str, price: float | None, outcome: ReplayOutcome, trace: ReplayTrace) -> ReplayRow:
    return ReplayRow(
        setting=setting,
        price_ms=None if price is None else round(price * 3.6e6, 9),
        warm=outcome.warm,
        ahead=outcome.ahead,
        waited=outcome.uses - outcome.warm,
        handshakes=outcome.handshakes,
        link_seconds=outcome.link_seconds,
        links=outcome.link_seconds / max(trace.span, 1e-9),
    )


def _print(trace: ReplayTrace, rows: list[ReplayRow]) -> None:
    from control.base.grid import show

    click.echo(f"{trace.uses} uses of {trace.peers} peers in {trace.span / 3600:.1f} h")
    show([_table(rows)])


def _table(rows: list[ReplayRow]) -> Grid:
    from control.base.grid import grid

    columns = ["setting", "price>", "warm hits>", "opened ahead>", "waited>", "handshakes>", "link-seconds>",
               "links held>"]  # fmt: skip
    return grid(columns, [
        (
            row.setting, "-" if row.price_ms is None else f"{row.price_ms:.3g} ms", str(row.warm), str(row.ahead),
            str(row.waited), str(row.handshakes), f"{row.link_seconds:.0f}", f"{row.links:.2f}",
        )
        for row in rows
    ], least=["price", "opened ahead", "link-seconds"], words="setting")  # fmt: skip
