"""Since when what is wrong is so (sans-IO)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping

__all__ = ["Since"]


class Since:
    """Args:
    now: seconds since 1970.

    Attributes:
        times: by what is wrong, since when, as `of` was told last.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.times: dict[Hashable, float] = {}

    def of(
        self, found: Iterable[tuple[Hashable, float | None]], known: Mapping[Hashable, float] | None = None
    ) -> list[float]:
        """For all that is wrong now, since when: seconds since 1970.

        Each of `found` is what it is and, where that is known, for how many seconds already; `known` is what somebody
        else has noticed. Otherwise it is since it was here first; what is not here any more is over.
        """
        now, before = self._now(), known or {}
        times: dict[Hashable, float] = {}
        told = []
        for each, lasted in found:
            first = now if lasted is None else now - lasted
            times[each] = min(first, self.times.get(each, first), before.get(each, first))
            told.append(times[each])
        self.times = times
        return told
