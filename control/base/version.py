"""Which Hostlane this is. The only place where that is written; pyproject.toml reads it from here."""

from __future__ import annotations

VERSION = "0.1.0"
"""A constant, as what pip has noted (importlib.metadata) takes 20 ms to find, at every start."""
