"""``python -m tests.fuzz TARGET [libFuzzer options]``: fuzz one target until it finds something or is told to stop.

What it learns, and inputs that fail, go to .fuzz/; reproduce one with ``python -m tests.fuzz TARGET FILE``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["proxy.mux", "proxy.links.handshake", "proxy.links.resumemark"]):
    from tests.fuzz.corpus import CORPUS
    from tests.fuzz.targets import TARGETS

SCRATCH = Path(".fuzz")
MAX_LENGTH = 2048
"""Bytes of an input: a dozen frames with room for payload. Longer ones find the same, more slowly."""


def main(argv: list[str]) -> None:
    """Does not return: libFuzzer ends the process."""
    if not argv or argv[0] not in TARGETS:
        sys.exit(f"usage: python -m tests.fuzz {'|'.join(TARGETS)} [libFuzzer options]")
    name, *options = argv
    learnt = SCRATCH / name
    learnt.mkdir(parents=True, exist_ok=True)
    inputs = [option for option in options if not option.startswith("-")] or [str(learnt), str(CORPUS / name)]
    flags = [option for option in options if option.startswith("-")]
    defaults = [f"-max_len={MAX_LENGTH}", f"-artifact_prefix={SCRATCH}/{name}-"]
    atheris.Setup([f"fuzz {name}", *defaults, *flags, *inputs], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
