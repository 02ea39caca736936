"""What a diagnosis says: findings in named groups, what was looked at, and what could not be seen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

Level = Literal["wrong", "note"]


class Finding(Struct, frozen=True, kw_only=True):
    """Something that costs or breaks. docs/check.md has an entry for each name."""

    name: str
    level: Level
    """wrong: something does not work, or a price is paid that Hostlane is there to save. note: worth knowing."""
    where: str
    """What it is about: a peer, an interface, a sysctl, a path..."""
    read: str
    """What was read, with its value."""
    cost: str
    mend: str
    """The command that mends it; where no command can, what to do."""
    measured: str | None = None
    """What it costs here, where that could be measured."""


class Passed(Struct, frozen=True):
    """Something that was looked at and is as it should be."""

    text: str


class Unchecked(Struct, frozen=True):
    """Something that could not be looked at, and why."""

    what: str
    why: str


Line = Finding | Passed | Unchecked


class SubjectReport(Struct, frozen=True, kw_only=True):
    """All that was found out about one subject."""

    name: str
    about: str
    findings: tuple[Finding, ...]
    seen: tuple[str, ...]
    unseen: tuple[Unchecked, ...]


class Report(Struct, frozen=True, kw_only=True):
    """A whole diagnosis; as JSON, what ``hostlane check --json`` prints."""

    wrong: int
    notes: int
    groups: tuple[SubjectReport, ...]


def group(name: str, about: str, lines: Iterable[Line]) -> SubjectReport:
    """The lines of one subject, what is wrong first."""
    found = list(lines)
    findings = [line for line in found if isinstance(line, Finding)]
    return SubjectReport(
        name=name,
        about=about,
        findings=tuple(sorted(findings, key=lambda finding: finding.level != "wrong")),
        seen=tuple(line.text for line in found if isinstance(line, Passed)),
        unseen=tuple(line for line in found if isinstance(line, Unchecked)),
    )


def report(groups: Iterable[SubjectReport]) -> Report:
    """The diagnosis that is made of these groups."""
    kept = tuple(groups)
    levels = [finding.level for group in kept for finding in group.findings]
    return Report(wrong=levels.count("wrong"), notes=levels.count("note"), groups=kept)
