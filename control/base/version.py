"""Which Hostlane this is. pyproject.toml reads it from here; the Dockerfile's label says it once more."""

from __future__ import annotations

VERSION = "0.1.0"
"""A constant, as what pip has noted (importlib.metadata) takes 20 ms to find, at every start."""
