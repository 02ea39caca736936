"""What a run of short gaps is evidence of: that a peer's own histogram foretells its gaps better than that of all
peers, or worse (sans-IO).
"""

from __future__ import annotations

from math import log

PRIOR = 3.0
"""Gaps of its own that weigh as much as what is known of all peers."""
MOST_EVIDENCE = 20.0
"""Bound (nats) of the evidence for either histogram, so that a peer that changes is believed within some dozen gaps."""

Shortest = tuple[float, float, float]
"""Of a histogram: its gaps in the first bin, all its gaps, and what is left of one when another has come."""


def of_run(evidence: float, times: int, own: Shortest, every: Shortest, spread: float) -> float:
    """The evidence after `times` more gaps in the first bin, each of which both histograms learn.

    Args:
        evidence: for the histogram of the peer's `own` gaps and against the one of `every` peer, nats.
        spread: part of the gaps that is in the first bin, as long as nothing is known.
    """
    short, count, faded = own
    all_short, all_count, all_faded = every
    for _ in range(times):
        shared = (spread + all_short) / (all_count + 1.0)
        ours = (PRIOR * shared + short) / (PRIOR + count)
        evidence = max(-MOST_EVIDENCE, min(MOST_EVIDENCE, evidence + log(ours / shared)))
        # The part of longer gaps shrinks faster in the histogram that forgets faster, and that has no more gaps than
        # the other: once its own foretells short ones better, it does so to the end of the run.
        if evidence == MOST_EVIDENCE and ours >= shared:
            break
        short, count = short * faded + 1.0, count * faded + 1.0
        all_short, all_count = all_short * all_faded + 1.0, all_count * all_faded + 1.0
    return evidence
