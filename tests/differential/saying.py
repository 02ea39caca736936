"""What the programs of this folder write down goes through here."""

from __future__ import annotations

import sys


def say(*words: object) -> None:
    """A line."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
