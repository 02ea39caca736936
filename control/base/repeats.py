"""Summaries of what happens again and again (sans-IO): of each kind of event the first is news, the rest are a number.

A caller that fails a hundred times a second would write 2 GB of log a day, and nobody would find in it what else has
happened. So the first event of a kind is told at once. Those that follow within a minute are counted, and then told in
one: the last of them, with how many they were. As long as they go on that is one line a minute.

A peer can make kinds up (it calls services that nobody has), so there is room for MOST_KINDS; those beyond are counted
together, by what has happened. So that one sort of event does not take the room of all others, it has no more of it
than is left for them (a dynamic threshold): the first that is noisy gets half, the next one a quarter.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

WINDOW = 60.0
"""Seconds for which events of a kind are counted before their number is told."""
MOST_KINDS = 128
"""Kinds that are told apart at a time; of one sort of event half as many. Each of them is a line in a WINDOW at most:
as much as a person still reads."""


class _Kind:
    __slots__ = ("last", "more", "name", "since", "various")

    def __init__(self, name: str, since: float, various: bool) -> None:
        self.name, self.since, self.various = name, since, various
        self.more = 0
        self.last: Mapping[str, Any] = {}

    def quiet(self, now: float) -> bool:
        """Whether nothing has been counted for so long that the next event is news again."""
        return not self.more and self.since + WINDOW <= now

    def tell(self, now: float) -> dict[str, Any]:
        """What was counted, as an event; nothing is afterwards."""
        kept = ("level", "event") if self.various else self.last.keys()
        told = {key: self.last[key] for key in kept if key in self.last}
        told |= {"various": True} if self.various else {}
        told |= {"more": self.more, "in_s": round(now - self.since, 1)}
        self.since, self.more, self.last = now, 0, {}
        return told


class Repeats:
    """Counts events by kind. `now` is seconds by any clock that does not go backwards.

    Attributes:
        next: when `due` has something to tell; infinity: nothing is counted.
    """

    def __init__(self) -> None:
        self.next = float("inf")
        self._kinds: dict[Hashable, _Kind] = {}

    def is_news(self, name: str, kind: tuple[Hashable, ...], event: Mapping[str, Any], now: float) -> bool:
        """Whether an event is the first of its kind for a while. If not, it is counted.

        Args:
            name: what has happened: one of few, since nobody outside can make these up.
            kind: what tells kinds of it apart: a service, a peer, a reason.
            event: kept until it is told or another one of its kind has come.
        """
        key: Hashable = (name, *kind)
        various = key not in self._kinds and not self._room(name, now)
        if various:
            key = name
        found = self._kinds.get(key)
        if found is None or found.quiet(now):
            self._kinds[key] = _Kind(name, now, various)
            return True
        found.more, found.last = found.more + 1, event
        self.next = min(self.next, found.since + WINDOW)
        return False

    def due(self, now: float) -> list[dict[str, Any]]:
        """The events that tell of others by now: the last one of each kind, with ``more``, how many were counted, and
        ``in_s``, seconds. Of kinds that are counted together: level, event and ``various``.
        """
        told = [kind.tell(now) for kind in self._kinds.values() if kind.more and kind.since + WINDOW <= now]
        self.next = min((kind.since + WINDOW for kind in self._kinds.values() if kind.more), default=float("inf"))
        return told

    def rest(self, now: float) -> list[dict[str, Any]]:
        """All that is counted, as `due` tells it, before its time."""
        self.next = float("inf")
        return [kind.tell(now) for kind in self._kinds.values() if kind.more]

    def _room(self, name: str, now: float) -> bool:
        """Whether another kind of that event can be told apart. Kinds that are quiet are forgotten first."""
        if self._has_room(name):
            return True
        self._kinds = {key: kind for key, kind in self._kinds.items() if not kind.quiet(now)}
        return self._has_room(name)

    def _has_room(self, name: str) -> bool:
        apart = [kind.name for kind in self._kinds.values() if not kind.various]
        return apart.count(name) < MOST_KINDS - len(apart)
