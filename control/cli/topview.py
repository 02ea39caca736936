"""What ``hostlane top`` shows: rates out of two looks at a proxy, one of three tables, sorted and filtered by keys. No
terminal and no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from control.api.messages import LinkInfo, Status, StreamInfo
from control.base.grid import Grid, grid
from control.cli.tables import amount, span

VIEWS = ("calls", "links", "hosts")
HELP = "1 calls  2 links  3 hosts  s sort  r reverse  / filter  p pause  q quit"


@dataclass(frozen=True)
class Look:
    """What a proxy told at one moment (monotonic seconds)."""

    at: float
    status: Status
    links: Sequence[LinkInfo]
    streams: Sequence[StreamInfo]


@dataclass(frozen=True)
class TopState:
    """What the keys have chosen.

    Attributes:
        sort: position of the column by which rows are sorted, of those that are numbers.
        typing: the filter is being typed.
    """

    view: str = VIEWS[0]
    sort: int = 0
    reverse: bool = False
    filter: str = ""
    typing: bool = False
    paused: bool = False
    over: bool = False

    def key(self, key: str) -> TopState:
        """After a key; one that means nothing changes nothing."""
        if self.typing:
            return self._typed(key)
        if key in ("q", "\x03", "\x04"):
            return replace(self, over=True)
        if key in "123" and key:
            return replace(self, view=VIEWS[int(key) - 1], sort=0)
        if key == "s":
            return replace(self, sort=self.sort + 1)
        if key == "/":
            return replace(self, typing=True, filter="")
        if key == "r":
            return replace(self, reverse=not self.reverse)
        return replace(self, paused=not self.paused) if key == "p" else self

    def _typed(self, key: str) -> TopState:
        if key in ("\r", "\n"):
            return replace(self, typing=False)
        if key in ("\x1b", "\x03"):
            return replace(self, typing=False, filter="")
        if key in ("\x7f", "\b"):
            return replace(self, filter=self.filter[:-1])
        return replace(self, filter=self.filter + key) if key.isprintable() else self


@dataclass
class _Row:
    names: tuple[str, ...]
    numbers: list[float]
    texts: list[str] = field(default_factory=list)


def heading(look: Look, before: Look | None) -> list[str]:
    """Some lines about the whole proxy, the last ones about what is wrong."""
    status = look.status
    opened, failed = (
        _rate(look, before, getter) for getter in (lambda s: s.streams_opened, lambda s: s.streams_refused)
    )
    lines = [
        f"{status.host}  up {span(status.uptime_s)}  version {status.version} ({status.core})",
        f"streams {status.streams} open, {opened:.0f}/s opened, {failed:.0f}/s failed  sessions {status.sessions}  "
        f"memory {amount(status.memory_used)} of {amount(status.memory_limit)}",
    ]
    down = [peer.name for peer in status.peers if peer.state == "down" and not peer.idle]
    waiting = sum(peer.waiting for peer in status.peers)
    wrong = [f"down: {', '.join(down)}"] if down else []
    wrong += [f"{waiting} streams wait for a link"] if waiting else []
    wrong += ["draining"] if status.draining else []
    return [*lines, *wrong, *status.missing, *status.namesakes]


def table(state: TopState, look: Look, before: Look | None) -> Grid:
    """The table that the state wants."""
    names, numbers, rows, show = _VIEWS[state.view](look, before)
    wanted = state.filter.lower()
    rows = [row for row in rows if not wanted or any(wanted in name.lower() for name in row.names)]
    by = state.sort % len(numbers)
    rows.sort(key=lambda row: (row.numbers[by], row.names), reverse=not state.reverse)
    columns = [*names, *(f"{name}{'*' if position == by else ''}>" for position, name in enumerate(numbers))]
    cells = [[*row.names, *(write(number) for write, number in zip(show, row.numbers, strict=True))] for row in rows]
    least = [name.removesuffix(">") for name in columns if name.removesuffix(">") not in (names[0], columns[-1])]
    kept = [f"{numbers[by]}*", names[1]]
    return grid(columns, cells, [name for name in reversed(least) if name not in kept], words=names[0])


_Parts = tuple[list[str], list[str], list[_Row], list[Callable[[float], str]]]


def _calls(look: Look, before: Look | None) -> _Parts:
    known = {} if before is None else {stream.id: stream for stream in before.streams}
    passed = _passed(look, before)
    rows: dict[tuple[str, ...], _Row] = {}
    for stream in look.streams:
        caller = "-" if stream.uid is None else str(stream.uid)
        key = (stream.service, stream.peer or "-", stream.direction, caller)
        row = rows.setdefault(key, _Row(key, [0.0] * 5))
        old = known.get(stream.id)
        row.numbers[0] += 1
        row.numbers[1] += (stream.bytes_sent - (old.bytes_sent if old else 0)) / passed if passed else 0
        row.numbers[2] += (stream.bytes_received - (old.bytes_received if old else 0)) / passed if passed else 0
        row.numbers[3] += stream.state in ("waiting", "calling", "calling_fin")
        row.numbers[4] = max(row.numbers[4], stream.age_s)
    names, numbers = ["service", "peer", "direction", "uid"], ["streams", "sent/s", "received/s", "waiting", "oldest"]
    return names, numbers, list(rows.values()), [_count, _bytes, _bytes, _count, span]


def _links(look: Look, before: Look | None) -> _Parts:
    known = {} if before is None else {link.id: link for link in before.links}
    passed, rows = _passed(look, before), []
    for link in look.links:
        old = known.get(link.id)
        sent, received = (
            max(0.0, (getattr(link, name) - getattr(old, name)) / passed) if old and passed else 0.0
            for name in ("bytes_sent", "bytes_received")
        )
        state = "suspended" if link.suspended_s is not None else "leaving" if link.leaving else "up"
        numbers = [link.streams, sent, received, link.rtt_ms or 0.0, link.queueing * 100, link.unacked, link.age_s]
        rows.append(_Row((link.id, link.peer, state), numbers))
    names = ["link", "peer", "state"]
    heads = ["streams", "sent/s", "received/s", "rtt ms", "queueing %", "unacked", "age"]
    return names, heads, rows, [_count, _bytes, _bytes, lambda ms: f"{ms:.2f}", _count, _bytes, span]


def _hosts(look: Look, before: Look | None) -> _Parts:
    rows = [
        _Row(
            (peer.name, "idle" if peer.idle else peer.state, peer.last_error or "-"),
            [peer.streams, peer.links, peer.waiting, peer.suspended, peer.memory_used],
        )
        for peer in look.status.peers
    ]
    names, numbers = ["host", "state", "last error"], ["streams", "links", "waiting", "suspended", "memory"]
    return names, numbers, rows, [_count, _count, _count, _count, _bytes]


_VIEWS: dict[str, Callable[[Look, Look | None], _Parts]] = {"calls": _calls, "links": _links, "hosts": _hosts}


def _passed(look: Look, before: Look | None) -> float:
    return 0.0 if before is None else look.at - before.at


def _rate(look: Look, before: Look | None, counted: Callable[[Any], int]) -> float:
    if before is None or (passed := look.at - before.at) <= 0 or before.status.pid != look.status.pid:
        return 0.0
    return max(0, counted(look.status) - counted(before.status)) / passed


def _count(number: float) -> str:
    return f"{number:.0f}"


def _bytes(number: float) -> str:
    return amount(round(number))
