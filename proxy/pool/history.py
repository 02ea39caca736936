"""Statistics of when a peer is used (sans-IO): of fixed size, fed with times, read by `proxy.pool.ttl`.

A peer is *in use* while a stream is open on any of its links; a *gap* is the time between two such times. Gaps are
counted in a histogram with bins of constant ratio (as HdrHistogram and DDSketch have them: one relative error from a
quarter of a second to days), and old gaps fade by forward decay (Cormode et al., ICDE 2009: new ones weigh more
instead, so that a gap costs one addition). Fading goes by the number of gaps and not by time, so that a busy peer's
statistics follow the hour and a rare peer's hold for days.

Holding an idle connection by the histogram of its gaps is an old idea: Keshav et al., "An empirical evaluation of
virtual circuit holding time policies in IP-over-ATM networks" (IEEE JSAC 1995). Opening it again shortly before
the next use that can be predicted comes from Shahrad et al., "Serverless in the wild" (ATC 2020).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from itertools import pairwise
from math import log

FLOOR = 0.25
"""Seconds; shorter gaps are all alike, since no link is closed so soon."""
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
PRIOR = 3.0
"""Gaps of its own that weigh as much as what is known of all peers."""
MOST_EVIDENCE = 20.0
"""Bound (nats) of the evidence for either histogram, so that a peer that changes is believed within some dozen gaps."""

BURST = 10.0
"""Seconds; uses that follow each other faster are one burst, and what may repeat by the clock is its beginning. A job
that runs by the clock makes its calls within seconds, and no such job comes more often than once a minute."""
PERIODS = 16
"""Distances between the beginnings of bursts that are kept. Enough to tell a clock from chance; few enough that a job
that was given another time is believed after a dozen runs."""


class GapHistogram:
    """A histogram of gaps that forgets. Memory is fixed: BINS numbers."""

    __slots__ = ("_growth", "_unit", "_weights", "total")

    def __init__(self, memory: int) -> None:
        self._weights = [0.0] * BINS
        self._unit = 1.0
        self._growth = 1 / (1 - 1 / memory)
        self.total = 0.0

    def add(self, position: int) -> None:
        """One more gap, in bin `position`."""
        self._unit *= self._growth
        self._weights[position] += self._unit
        self.total += self._unit
        if self._unit > 1e60:
            scale = 1 / self._unit
            self._weights = [weight * scale for weight in self._weights]
            self.total *= scale
            self._unit = 1.0

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
        return (weight * prior + self._weights[position] / self._unit) / (self.count + weight)


class UseHistory:
    """When one peer was used. Memory is fixed, whatever happens.

    A peer that is like all others is best judged by the histogram of all peers, which holds more gaps than its own.
    Which of the two counts is decided by evidence: the one that has foretold the peer's gaps better so far (the
    difference of their log likelihoods).

    Args:
        shared: the gaps of all peers of this host; each peer's history adds its own to it.

    Attributes:
        gaps: how many were seen so far.
        began: when the latest burst began, or None; periods: seconds between the beginnings of bursts, the latest ones.
    """

    __slots__ = ("_evidence", "_idle_since", "_own", "_shared", "began", "gaps", "periods")

    def __init__(self, shared: GapHistogram) -> None:
        self._shared = shared
        self._own = GapHistogram(OWN_MEMORY)
        self._evidence = 0.0
        self._idle_since: float | None = None
        self.gaps = 0
        self.began: float | None = None
        self.periods: deque[float] = deque(maxlen=PERIODS)

    def begin(self, now: float) -> None:
        """The peer comes into use at `now` (seconds of any clock that does not go back)."""
        gap = None if self._idle_since is None else max(0.0, now - self._idle_since)
        if gap is not None:
            self._learn(min(BINS, bisect_right(EDGES, gap)) - 1)
        if gap is None or gap >= BURST:
            if self.began is not None:
                self.periods.append(now - self.began)
            self.began = now

    def end(self, now: float) -> None:
        """The peer is in use no more."""
        self._idle_since = now

    def _learn(self, position: int) -> None:
        shared = self._shared.share(position, _SPREAD, 1.0)
        own = self._own.share(position, shared, PRIOR)
        self._evidence = max(-MOST_EVIDENCE, min(MOST_EVIDENCE, self._evidence + log(own / shared)))
        self.gaps += 1
        self._own.add(position)
        self._shared.add(position)

    @property
    def particular(self) -> bool:
        """Whether the peer is judged by its own gaps, and not by those of all peers."""
        return self._evidence > 0

    @property
    def known(self) -> bool:
        """Whether there is any gap to judge by."""
        return self._shared.total > 0

    def shares(self) -> list[float]:
        """For each bin, the likelihood that the peer's next gap falls into it."""
        shared = self._shared.mixed(None, 1.0)
        return self._own.mixed(shared, PRIOR) if self.particular else shared
