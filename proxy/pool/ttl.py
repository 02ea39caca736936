"""How long a link is kept without a stream, and when it is opened again ahead of the next one (sans-IO).

An idle link costs its price for every second; a use that finds none waits for a handshake. With the likelihood of each
length of the gap known, the TTL with the least expected cost, ``handshake x P(gap > T) + price x E[min(gap, T)]``, is
found by walking along the bins once: keeping the link through one more bin gains ``handshake x P(gap in it)`` and costs
``price x E[seconds held in it]``, and the best end is where the sum of both is greatest. It need not be the first
maximum: a service that is called every minute has no gaps of 20 s and many of 60 s.

For uses that come by the clock the link may be closed at once and opened again shortly before the next one.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import NamedTuple

from proxy.pool.history import BURST, EDGES, WIDTHS, UseHistory

_BURST = bisect_left(EDGES, BURST)
LEAD = 1.0
"""Seconds before the earliest expected use at which a link is opened: ample for a handshake, also with TLS."""
UNWAITED = 0.25
"""A handshake that nobody waits for costs this part of one that a stream waits for: the work of both proxies without
the delay. (Without any cost, pools would dial on every faint hope.)"""
FEWEST_PERIODS = 6
"""Periods after which bursts may count as coming by the clock. Six lie within seconds of each other by chance rarely
enough, and a job of every ten minutes is known within about an hour."""
OUTLIERS = 3
"""Periods that may be left out at either end: a run that was missed or started by hand."""
LIKELY = 0.75
"""Likelihood, that the next burst comes within the window, below which no link is opened ahead."""


class TtlTerms(NamedTuple):
    """What a decision rests on besides the history."""

    handshake: float
    """Seconds that a stream waits for a new link."""
    price: float
    """Seconds of such waiting that one second of an idle link is worth."""
    low: float
    """Seconds; no TTL is shorter."""
    high: float
    """Seconds; no TTL is longer."""
    ahead: bool = True
    """Whether links are opened ahead."""


class IdlePlan(NamedTuple):
    """What to do with a peer's last link when its last stream has ended. Times are seconds from then on."""

    ttl: float
    """Close the link after that."""
    shorter: float
    """Part of the gaps that are not longer than `ttl`, 0 to 1."""
    ahead: tuple[float, float] | None = None
    """Open one again at the first of these times and keep it to the second; None: dial when a stream asks."""


def keep(shares: list[float], terms: TtlTerms, high: float) -> tuple[float, float, float]:
    """The best TTL from ``terms.low`` to `high`, the part of the gaps that are not longer, and what it gains against
    closing at once (seconds of waiting). A higher price never makes the TTL longer.

    Args:
        shares: for each bin, the likelihood that the next gap falls into it (`UseHistory.shares`).
    """
    handshake, price, low = terms.handshake, terms.price, terms.low
    gain = shorter = 0.0
    best, best_shorter, best_gain = low, 0.0, float("-inf")
    for share, width, edge in zip(shares, WIDTHS, EDGES[1:], strict=False):
        if edge > high and best_gain > float("-inf"):
            break
        gain += handshake * share - price * (1.0 - shorter - share / 2) * width
        shorter += share
        if edge >= low and gain > best_gain:
            best, best_shorter, best_gain = min(edge, high), shorter, gain
    return best, best_shorter, best_gain


def foresee(history: UseHistory, since: float, over: float, terms: TtlTerms) -> tuple[float, float, float] | None:
    """The window in which a link is to be up ahead of the next burst: from, until (seconds after `since`), and what it
    gains (seconds of waiting); None: the bursts do not come by the clock, or it does not pay.

    Args:
        since: when the last stream ended.
        over: likelihood that the burst has ended with that stream.
    """
    count = len(history.periods)
    if count < FEWEST_PERIODS or history.began is None:
        return None
    offset = history.began - since
    expected = sorted(offset + period for period in history.periods)
    sums = [0.0, *accumulate(expected)]
    best: tuple[float, float, float] | None = None
    for first in range(min(OUTLIERS, count)):
        begin = expected[first] - LEAD
        if begin <= terms.low:
            continue
        for last in range(count - 1, max(first, count - 1 - OUTLIERS), -1):
            # The next period lies between two of n earlier ones, j - i apart in order, with likelihood (j - i)/(n + 1).
            likely = (last - first) / (count + 1)
            if likely < LIKELY:
                break
            end = expected[last] + LEAD
            reached = (count - first) / count
            held = (sums[last + 1] - sums[first] + (count - 1 - last) * end) / count - reached * begin
            gain = over * (terms.handshake * (likely - UNWAITED * reached) - terms.price * held)
            if gain > 0 and (best is None or gain > best[2]):
                best = begin, end, gain
    return best


class GapStatistics(NamedTuple):
    """What follows from the lengths of the gaps alone, which changes only when one is added."""

    shares: list[float]
    """For each bin, the likelihood that the next gap falls into it."""
    ttl: float
    shorter: float
    gain: float
    """What `keep` returns: the best TTL, the part of the gaps that are not longer, the gain."""


def gauge(history: UseHistory, terms: TtlTerms) -> GapStatistics:
    """The statistics of a history as it is now."""
    shares = history.shares()
    return GapStatistics(shares, *keep(shares, terms, terms.high))


def plan(history: UseHistory, gauge: GapStatistics, since: float, terms: TtlTerms) -> IdlePlan:
    """What to do after the last stream has ended at `since`. `gauge` is of this history, perhaps a few gaps old."""
    shares, ttl, shorter, gain = gauge
    ahead = foresee(history, since, sum(shares[_BURST:]), terms) if terms.ahead else None
    if ahead is not None and ahead[0] < ttl:
        # Keep the link until the next use, or close it and open it again: whichever gains more.
        brief, brief_shorter, brief_gain = keep(shares, terms, ahead[0])
        if brief_gain + ahead[2] <= gain:
            return IdlePlan(ttl, shorter)
        ttl, shorter = brief, brief_shorter
    return IdlePlan(ttl, shorter, None if ahead is None else ahead[:2])


def reason(history: UseHistory, plan: IdlePlan, terms: TtlTerms) -> str:
    """Why a plan is as it is, in words (``hostlane links``)."""
    if not history.known:
        return "no gap between uses seen yet"
    whose = "its" if history.particular else "all peers'"
    words = [
        f"{plan.shorter:.0%} of {whose} gaps are shorter".replace("%", " %"),
        f"a handshake takes {terms.handshake * 1000:.1f} ms",
        f"{terms.price * 3.6e6:g} ms for an hour idle",
    ]
    if plan.ahead is not None:
        words.append(f"opened ahead after {plan.ahead[0]:.0f} s, as the last {len(history.periods)} bursts tell")
    return "; ".join(words)
