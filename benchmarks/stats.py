"""Medians, and ratios of what was measured side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

__all__ = ["median", "median_or_none", "paired_ratio", "spread"]


def median_or_none(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def spread(values: Sequence[float]) -> float:
    """Largest to smallest, 1.0 when they are all the same; 1.0 too when there is nothing to compare."""
    return max(values) / min(values) if values and min(values) > 0 else 1.0


def paired_ratio(ours: Mapping[int, float], theirs: Mapping[int, float]) -> float | None:
    """Median over the rounds that both have of ours / theirs in that round: what changed between rounds cancels out."""
    return median_or_none([ours[key] / theirs[key] for key in ours if theirs.get(key)])
