"""Statistics of when a peer is used (sans-IO): of fixed size, fed with times, read by `proxy.pool.ttl`.

A peer is *in use* while a stream is open on any of its links; a *gap* is the time between two such times. Gaps are
counted in a histogram with bins of constant ratio (as HdrHistogram and DDSketch have them: one relative error from a
quarter of a second to days), and old gaps fade by forward decay (Cormode et al., ICDE 2009: new ones weigh more
instead, so that a gap costs one addition). Fading goes by the number of gaps and not by time, so that a busy peer's
statistics follow the hour and a rare peer's hold for days.

Most gaps of a busy peer are shorter than anything is decided by. They all lie in the first bin: while no other gap
comes, they are only counted (`uses.GapCounter`), and learnt together when somebody looks, with the same result
(`UseHistory.learn_run`).

Holding an idle connection by the histogram of its gaps is an old idea: Keshav et al., "An empirical evaluation of
virtual circuit holding time policies in IP-over-ATM networks" (IEEE JSAC 1995). Opening it again shortly before
the next use that can be predicted comes from Shahrad et al., "Serverless in the wild" (ATC 2020).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from itertools import pairwise
from math import exp, expm1, inf, log

from proxy.pool import evidence
from proxy.pool.evidence import MOST_EVIDENCE, PRIOR, Shortest
from proxy.pool.uses import FLOOR, GapCounter

PER_OCTAVE = 4
"""Bins for each doubling: a bin is 19 % wide. Finer ones hold fewer gaps each and learn slower."""
BINS = 19 * PER_OCTAVE
"""Up to 36 hours; longer gaps count as that."""
EDGES = [0.0, *(FLOOR * 2 ** (step / PER_OCTAVE) for step in range(BINS))]
"""Seconds; bin `i` has the gaps from ``EDGES[i]`` up to ``EDGES[i + 1]``."""
WIDTHS = [above - below for below, above in pairwise(EDGES)]
_SPREAD = 1 / BINS

OWN_MEMORY, SHARED_MEMORY = 200, 2000
"""Gaps after which one has faded to a third, for one peer and for all peers together."""

BURST = 10.0
"""Seconds; uses that follow each other faster are one burst, and what may repeat by the clock is its beginning. A job
that runs by the clock makes its calls within seconds, and no such job comes more often than once a minute."""
PERIODS = 16
"""Distances between the beginnings of bursts that are kept. Enough to tell a clock from chance; few enough that a job
that was given another time is believed after a dozen runs."""

ROUNDING = 1e-9
"""Evidence (nats) that is none: where both histograms foretell the same, as they do for a peer's first gap, what is
left is what sums were rounded by."""
RUN = 256
"""Short gaps of one peer that are learnt together at most: a tenth of a millisecond, uncompiled."""


class GapHistogram:
    """A histogram of gaps that forgets. Memory is fixed: BINS numbers.

    Args:
        memory: gaps after which one has faded to a third.

    Attributes:
        faded: what is left of a gap when another one has come.
        run: the history whose short gaps are not in here yet; they come before any other gap and before a look
            (`settle`).
    """

    __slots__ = ("_growth", "_unit", "_weights", "faded", "run", "total")

    def __init__(self, memory: int) -> None:
        self._weights = [0.0] * BINS
        self._unit = 1.0
        self.faded = 1 - 1 / memory
        self._growth = -log(self.faded)
        self.total = 0.0
        self.run: UseHistory | None = None

    def add(self, position: int, times: int = 1) -> None:
        """`times` more gaps, all in bin `position`, up to RUN; costs the same whatever their number."""
        growth = self._growth
        # The sum of the units of all of them, each greater than the one before.
        weight = self._unit * exp(growth) * expm1(growth * times) / expm1(growth)
        self._unit *= exp(growth * times)
        self._weights[position] += weight
        self.total += weight
        if self._unit > 1e60:
            scale = 1 / self._unit
            self._weights = [weight * scale for weight in self._weights]
            self.total *= scale
            self._unit = 1.0

    def settle(self) -> None:
        """Learn the short gaps that were only counted."""
        if self.run is not None:
            self.run.learn_run()

    def counted(self, position: int) -> float:
        """Gaps in bin `position`, faded ones as the part that is left of them."""
        return self._weights[position] / self._unit

    @property
    def shortest(self) -> Shortest:
        """What `evidence.of_run` asks for."""
        return self.counted(0), self.count, self.faded

    @property
    def count(self) -> float:
        """Gaps counted, faded ones as the part that is left of them."""
        return self.total / self._unit

    def mixed(self, prior: list[float] | None, weight: float) -> list[float]:
        """The part of all gaps that is in each bin, after adding `weight` gaps spread like `prior` (None: evenly)."""
        scale = 1 / (self.count + weight)
        unit, base = scale / self._unit, scale * weight
        if prior is None:
            even = base * _SPREAD
            return [even + unit * own for own in self._weights]
        return [base * share + unit * own for share, own in zip(prior, self._weights, strict=True)]

    def share(self, position: int, prior: float, weight: float) -> float:
        """Bin `position` of what `mixed` returns; `prior` is that bin's part."""
        return (weight * prior + self.counted(position)) / (self.count + weight)


class UseHistory(GapCounter):
    """When one peer was used. Memory is fixed, whatever happens.

    A peer that is like all others is best judged by the histogram of all peers, which holds more gaps than its own.
    Which of the two counts is decided by evidence: the one that has foretold the peer's gaps better so far (the
    difference of their log likelihoods).

    Args:
        shared: the gaps of all peers of this host; each peer's history adds its own to it.

    Attributes:
        began: when the latest burst began, or None; periods: seconds between the beginnings of bursts, the latest ones.
    """

    __slots__ = ("_evidence", "_learnt", "_own", "_shared", "began", "periods")

    def __init__(self, shared: GapHistogram) -> None:
        super().__init__()
        self._shared = shared
        self._own = GapHistogram(OWN_MEMORY)
        self._evidence = 0.0
        self._learnt = 0
        self.began: float | None = None
        self.periods: deque[float] = deque(maxlen=PERIODS)

    def gap(self, now: float) -> None:
        """Learn a gap that ends at `now`, or begin another run of short ones (`GapCounter.begin`)."""
        gap = now - self.idle_since
        self._shared.settle()
        if gap < FLOOR:
            self._shared.run, self.countable = self, RUN - 1
            return
        if gap < inf:
            self._learn(min(BINS, bisect_right(EDGES, gap)) - 1)
        if gap >= BURST:
            if self.began is not None:
                self.periods.append(now - self.began)
            self.began = now

    def _learn(self, position: int) -> None:
        shared = self._shared.share(position, _SPREAD, 1.0)
        own = self._own.share(position, shared, PRIOR)
        self._evidence = max(-MOST_EVIDENCE, min(MOST_EVIDENCE, self._evidence + log(own / shared)))
        self._learnt += 1
        self._own.add(position)
        self._shared.add(position)

    def learn_run(self) -> None:
        """What `_learn` would have made of the short gaps that were only counted, one by one."""
        times, self.countable, self._shared.run = self._counted, 0, None
        own, every = self._own, self._shared
        self._evidence = evidence.of_run(self._evidence, times, own.shortest, every.shortest, _SPREAD)
        self._learnt += times
        own.add(0, times)
        every.add(0, times)

    @property
    def _counted(self) -> int:
        """Short gaps that were only counted."""
        return RUN - self.countable if self._shared.run is self else 0

    @property
    def gaps(self) -> int:
        """How many were seen so far."""
        return self._learnt + self._counted

    @property
    def particular(self) -> bool:
        """Whether the peer is judged by its own gaps, and not by those of all peers."""
        self._shared.settle()
        return self._evidence > ROUNDING

    @property
    def known(self) -> bool:
        """Whether there is any gap to judge by."""
        return self._shared.total > 0 or self._shared.run is not None

    def shares(self) -> list[float]:
        """For each bin, the likelihood that the peer's next gap falls into it."""
        self._shared.settle()
        shared = self._shared.mixed(None, 1.0)
        return self._own.mixed(shared, PRIOR) if self.particular else shared
