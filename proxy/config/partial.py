"""A configuration that is being checked: any value of it may be wrong, and is UNSET then, whatever its type says."""

from __future__ import annotations

from typing import Any

Partial = Any
"""A `proxy.config.schema.Config`, or a part of one, in which every value may be UNSET."""


def entries(section: Any) -> list[tuple[str, Any]]:
    """Names and values of a mapping; none if it is UNSET."""
    return list(section.items()) if isinstance(section, dict) else []
