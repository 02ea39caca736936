"""README.md's commands for containers, and docs/containers.md's for upgrading them, as they stand there."""

from __future__ import annotations

import re
from typing import NamedTuple

from tests.docker.programs import ROOT

SECTION = "## Two Docker hosts"
LEFT_OUT = "…"
_PROMPT = re.compile(r"(host-[a-z])\$ (.*)")


class Typed(NamedTuple):
    """A command, and the lines of its answer that README.md shows."""

    host: str
    line: str
    shown: list[str]


def typed(text: str | None = None) -> list[Typed]:
    """What is typed on which host, in its order. `text`: instead of README.md."""
    text = (ROOT / "README.md").read_text() if text is None else text
    section = text.partition(f"\n{SECTION}")[2].partition("\n## ")[0]
    found: list[Typed] = []
    for block in re.findall(r"```console\n(.*?)```", section, re.DOTALL):
        for line in block.splitlines():
            if (prompt := _PROMPT.fullmatch(line)) is not None:
                found.append(Typed(prompt[1], prompt[2], []))
            else:
                found[-1].shown.append(line)
    return found


def differs(shown: list[str], said: str) -> str | None:
    """The first line that is shown and was not said, in that order; None: there is none. What is shown without anything
    left out was said without anything else.
    """
    lines = [line.rstrip() for line in said.splitlines()]
    if LEFT_OUT not in shown:
        return None if shown == lines else f"{shown} instead of {lines}"
    rest = iter(lines)
    return next((line for line in shown if line != LEFT_OUT and line.rstrip() not in rest), None)


def upgrade(text: str | None = None) -> list[str]:
    """The commands that docs/containers.md upgrades a host by. `text`: instead of it."""
    text = (ROOT / "docs/containers.md").read_text() if text is None else text
    section = text.partition("\n## With docker compose")[2].partition("\n## ")[0]
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)[0].strip().splitlines()
