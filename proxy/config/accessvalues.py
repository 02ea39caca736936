"""What the section of the access log holds, turned into values, as `control.base.reading.units` does for others."""

from __future__ import annotations

from typing import Literal

from control.base.reading.shape import NULL, shape_of, takes, text
from control.base.reading.units import PATH, absolute_path, duration, wrong

STDERR = "stderr"
TARGET = f"{STDERR}, or {PATH}, or null"
ONLY = "all, failed, or {slower_than: DURATION} such as {slower_than: 50ms}"
SHARE = "a number above 0, of at most 1"

Only = Literal["all", "failed"] | float
"""Which streams; of slow ones, how slow: seconds."""


@takes({"anyOf": [text("stderr|/.*"), NULL]})
def target(raw: object) -> str | None:
    """``stderr``, or a path as `units.absolute_path` reads it."""
    if raw is None or raw == STDERR:
        return STDERR if raw else None
    if not isinstance(raw, str) or not raw.startswith("/"):
        raise wrong(raw, TARGET)
    return absolute_path(raw)


_SLOWER = {
    "type": "object",
    "properties": {"slower_than": shape_of(duration)},
    "required": ["slower_than"],
    "additionalProperties": False,
}


@takes(
    {"anyOf": [{"enum": ["all", "failed"]}, _SLOWER]},
    write=lambda found: {"slower_than": f"{found * 1000:g}ms"} if isinstance(found, float) else found,
)
def only(raw: object) -> Only:
    """As it is written, but ``{slower_than: 50ms}`` to 0.05 (seconds)."""
    if raw == "all":
        return "all"
    if raw == "failed":
        return "failed"
    if isinstance(raw, dict):
        if set(raw) != {"slower_than"}:
            raise ValueError(f"found a mapping with {', '.join(map(str, raw)) or 'nothing'}; allowed: {ONLY}")
        return duration(raw["slower_than"])
    raise wrong(raw, ONLY)


@takes({"type": "number", "exclusiveMinimum": 0, "maximum": 1})
def share(raw: object) -> float:
    """A part of all, as a number."""
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not 0 < raw <= 1:
        raise wrong(raw, SHARE)
    return float(raw)
