"""An explanation as a picture in text. What it quotes is never interpreted by the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from control.base.terminal import printable
from proxy.explain.account import Explanation, MessagePath, PathStep

_TIME = 11
"""Columns of ``12.345 ms``, with room."""
KERNELS = "from kernel to kernel (ICMP echo), nobody is woken"
PROCESSES = "between processes, each of them woken; what was measured of it"


def lines(found: Explanation) -> Iterator[Text]:
    """The whole picture."""
    yield Text(f"{found.service}, called on {found.host}, served by {found.peer or 'this host itself'}", style="bold")
    for way in (found.direct, found.through):
        if way is not None:
            yield Text("")
            yield from _way(way)
    yield Text("")
    yield Text("saved since the proxy started", style="bold")
    for text in found.saved:
        yield Text(f"  {printable(text)}")


def _way(way: MessagePath) -> Iterator[Text]:
    yield Text(f"{'there+back':>{_TIME}}   {printable(way.title)}", style="bold")
    where = ""
    for position, part in enumerate(way.parts):
        if position:
            yield Text(f"{'':>{_TIME}}   │", style="dim")
        if part.where not in ("", where):
            where = part.where
            yield Text.assemble(f"{'':>{_TIME}}   ", (f"┄ {'in this namespace' if where == 'here' else where}", "dim"))
        yield _part(part)
        if part.costs is not None:
            yield Text.assemble(f"{'':>{_TIME}}   │   ", (f"costs {printable(part.costs)}", "yellow"))
    for time, what in ((way.kernel_ms, KERNELS), (way.round_trip_ms, PROCESSES)):
        yield Text(f"{'unmeasured' if time is None else f'{time:.3f} ms':>{_TIME}}   = {what}", style="bold")
    yield Text(f"{'':>{_TIME}}   a new connection waits for: {printable(way.first_byte)}")


def _part(part: PathStep) -> Text:
    time = "" if part.round_trip_ms is None else f"{part.round_trip_ms:.3f} ms"
    return Text.assemble(
        f"{time:>{_TIME}}   ",
        (f"{'●' if part.seen else '?'} {printable(part.name)}", "bold" if part.seen else "dim"),
        f"  {printable(part.read)}",
    )
