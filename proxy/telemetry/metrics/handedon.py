"""Numbers go on when another process takes over: the one that still lets its streams finish tells the one that accepts
what has been added since it told last (counters), and what there is now (gauges), so that both together are what one
process would say. Its first word is all that it has counted so far, what it was told itself included.

A packet is a message of the connection that the two keep (`agent.handover.leash`). A version that does not know it
ignores it. Of other versions come families that are not known here, which are ignored, too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Annotated

import msgspec
import structlog
import trio
from msgspec import Meta, Struct

from control.base.exposition import Family, Labels, Readings
from proxy.telemetry.metrics import catalog

__all__ = ["PATIENCE", "ROWS", "CountTeller", "CountsOfOthers"]

log = structlog.get_logger()

ROWS = 128
"""Series in a packet: with the longest names there are, it stays below `agent.handover.leash.LARGEST_COUNT`."""
PATIENCE = 8.0
"""Seconds after a takeover for which a scrape waits for the first words of the process before, which on a busy machine
take some: less than the 10 s that Prometheus waits. What was told without them would be less than before, and a counter
that has gone down counts as one that has begun anew."""
COUNTED = frozenset(family for family in catalog.ALL if family.kind in ("counter", "histogram"))
BY_NAME = {family.name: family for family in catalog.ALL}

_Label = Annotated[str, Meta(max_length=64)]
_Number = tuple[str, list[_Label], int | float]
_Buckets = tuple[str, list[_Label], list[int], float]


class _Packet(Struct, array_like=True, frozen=True):
    """`whole`: the sender has told nothing before this batch, of which this may be the `last` one."""

    whole: bool
    last: bool
    numbers: list[_Number]
    buckets: list[_Buckets]


_decode = msgspec.msgpack.Decoder(_Packet).decode
_encode = msgspec.msgpack.Encoder().encode
_Key = tuple[Family, Labels]


class CountTeller:
    """The process that ends with its streams.

    Args:
        read: returns all its readings, and what it was told.
    """

    def __init__(self, read: Callable[[], Awaitable[Readings]]) -> None:
        self._read = read
        self._numbers: dict[_Key, float] = {}
        self._buckets: dict[_Key, tuple[list[int], float]] = {}
        self._whole = True
        self._one = trio.Lock()

    async def tell(self, say: Callable[[bytes], Awaitable[None]]) -> None:
        """Tell what is new in packets that `say` sends; what it has raised for was not sent, and is told next time.
        Raises what `say` raises.
        """
        async with self._one:
            readings = await self._read()
            numbers, buckets = list(self._new_numbers(readings)), list(self._new_buckets(readings))
            while True:
                now, numbers = numbers[:ROWS], numbers[ROWS:]
                more, buckets = (buckets, []) if len(now) + len(buckets) <= ROWS else ([], buckets)
                if not now:
                    more, buckets = buckets[:ROWS] or more, buckets[ROWS:]
                last = not numbers and not buckets
                await say(
                    _encode(
                        _Packet(
                            self._whole,
                            last,
                            [(family.name, list(labels), value) for (family, labels), value, _ in now],
                            [(family.name, list(labels), counts, total) for (family, labels), counts, total, _ in more],
                        )
                    )
                )
                self._numbers.update({key: told for key, _, told in now if key[0] in COUNTED})
                self._buckets.update({key: told for key, _, _, told in more})
                if last:
                    self._whole = False
                    return

    def _new_numbers(self, readings: Readings) -> Iterator[tuple[_Key, float, float]]:
        """What to tell, and what has been told by then."""
        for family, found in readings.numbers.items():
            for labels, value in found.items():
                if family in catalog.OF_ALL_PROCESSES:
                    yield (family, labels), value, value
                elif family in COUNTED:
                    key = family, labels
                    new = value - self._numbers.get(key, 0)
                    if new > 0 or key not in self._numbers:  # a series that stands at 0 does not vanish either
                        yield key, max(0, new), value

    def _new_buckets(self, readings: Readings) -> Iterator[tuple[_Key, list[int], float, tuple[list[int], float]]]:
        for family, found in readings.histograms.items():
            for labels, one in found.items():
                before, total = self._buckets.get((family, labels), ([0] * len(one.counts), 0.0))
                new = [max(0, count - old) for count, old in zip(one.counts, before, strict=True)]
                if any(new) or (family, labels) not in self._buckets:
                    yield (family, labels), new, max(0.0, one.total - total), (list(one.counts), one.total)


class CountsOfOthers:
    """What the process that accepts was told.

    Args:
        label: the labels under which a series is counted here.
        known: whether a series is still told of; if not, it is forgotten.
    """

    def __init__(self, label: Callable[[Family, Labels], Labels], known: Callable[[Family, Labels], bool]) -> None:
        self._label, self._known = label, known
        self._counted = Readings()
        self._now: dict[str, Readings] = {}
        self._coming: dict[str, Readings] = {}
        self._deadline = -1.0
        self._whole = trio.Event()

    def expect(self, deadline: float) -> None:
        """A process is about to tell all that it has counted; until `deadline`, by trio's clock, scrapes wait."""
        self._deadline = deadline

    @property
    def waiting(self) -> bool:
        """Whether they do."""
        return not self._whole.is_set() and trio.current_time() < self._deadline

    def heard(self, process: str, packet: bytes) -> None:
        """A process has said this. What makes no sense is ignored, and logged."""
        try:
            found = _decode(packet)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("a process that was taken over tells numbers that make no sense", kind=(), error=str(error))
            return
        coming = self._coming.setdefault(process, Readings())
        for name, labels, value in found.numbers:
            family = BY_NAME.get(name)
            if family is None or len(labels) != len(family.labels) or value < 0:
                continue
            into = self._counted if family in COUNTED else coming if family in catalog.OF_ALL_PROCESSES else None
            if into is not None:
                into.add(family, value, *self._label(family, tuple(labels)))
        for name, labels, counts, total in found.buckets:
            family, bounds = BY_NAME.get(name), catalog.BOUNDS.get(name)
            if family is None or bounds is None or len(labels) != len(family.labels) or len(counts) != len(bounds) + 1:
                continue
            self._counted.buckets(family, bounds, counts, total, self._label(family, tuple(labels)))
        if found.last:
            self._now[process] = self._coming.pop(process)
            if found.whole:
                self._whole.set()

    def ended(self, process: str) -> None:
        """It has: what it had is not there any more, what it has counted is."""
        self._now.pop(process, None)
        self._coming.pop(process, None)

    async def add_to(self, readings: Readings) -> None:
        """Add it all to this process's own readings. Waits for what is awaited."""
        if self.waiting:
            with trio.move_on_at(self._deadline):
                await self._whole.wait()
        for now in self._now.values():
            _merge(now, readings)
        self.counted(readings)

    def counted(self, readings: Readings) -> None:
        """Add what does not end with the processes."""
        for family, numbers in self._counted.numbers.items():
            for labels in [labels for labels in numbers if not self._known(family, labels)]:
                del numbers[labels]
        for family, histograms in self._counted.histograms.items():
            for labels in [labels for labels in histograms if not self._known(family, labels)]:
                del histograms[labels]
        _merge(self._counted, readings)


def _merge(found: Readings, into: Readings) -> None:
    for family, numbers in found.numbers.items():
        for labels, value in numbers.items():
            into.add(family, value, *labels)
    for family, histograms in found.histograms.items():
        for labels, one in histograms.items():
            into.buckets(family, one.bounds, one.counts, one.total, labels)
