"""Tests that repeat something a thousand times do so in `make test-all`; `make test` does a part of it."""

from __future__ import annotations

import os

ALL = os.environ.get("HOSTLANE_WHOLE") == "1"
"""Set by `make test-all`."""


def whole(number: int, *, quick: int) -> int:
    """How often to do it."""
    return number if ALL else quick
