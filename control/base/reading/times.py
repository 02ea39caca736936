"""Moments as errors, logs and tables write them."""

from __future__ import annotations

from datetime import UTC, datetime


def when(moment: float) -> str:
    """Seconds since 1970 as ``2026-01-31 12:00 UTC``."""
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC"
