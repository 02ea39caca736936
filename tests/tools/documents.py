"""What documents have people type, and what they say is printed then."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_PROMPT = re.compile(r"(?:([\w-]*)\$|([\w-]+)#) (?=\S)")
_ALIKE = (
    (re.compile(r"hostlane1\.[\w-]+(?:…|\.{3})?"), "TOKEN"),
    (re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{12,}\b"), "HEX"),
    (re.compile(r"\d+(?:\.\d+)*"), "0"),
    (re.compile(r"[ \t]+"), " "),
)


class Typed(NamedTuple):
    """A line behind a prompt; `host` is empty where the prompt names none."""

    host: str
    line: str
    printed: str


def blocks(document: str) -> list[tuple[str, str]]:
    """Language and text of each block of a document, by its path in the sources."""
    return FENCE.findall((ROOT / document).read_text())


def block(document: str, start: str, language: str = "") -> str:
    """The one block that begins with this, and is of the language, if one is named. AssertionError: there is none, or
    several."""
    [text] = [text for kind, text in blocks(document) if text.startswith(start) and (not language or kind == language)]
    return text


def typed(text: str) -> Iterator[Typed]:
    """The lines behind prompts, each with what stands below it."""
    host, line, printed = "", "", list[str]()
    for each in text.splitlines():
        if found := _PROMPT.match(each):
            if line:
                yield Typed(host, line, "\n".join(printed))
            host, line, printed = found[1] or found[2] or "", each[found.end() :], []
        else:
            printed.append(each)
    if line:
        yield Typed(host, line, "\n".join(printed))


def shape(text: str) -> list[str]:
    """The lines of what is printed, without what differs from time to time: numbers, times, ids, widths of columns."""
    for found, alike in _ALIKE:
        text = found.sub(alike, text)
    return [line.strip() for line in text.splitlines() if line.strip()]


def typing(document: str) -> Iterator[str]:
    """The first lines of the blocks in which something is typed."""
    for language, text in blocks(document):
        if language == "sh" or (language in ("", "console") and any(typed(text))) or text.startswith("python -m "):
            yield text.partition("\n")[0]
