"""A diagnosis as text for people. What it quotes is shown whatever it is, and never interpreted by the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from control.base.terminal import printable
from proxy.check.report import Finding, Report, SubjectReport

_STYLES = {"wrong": "bold red", "note": "yellow"}


def lines(report: Report) -> Iterator[Text]:
    """The whole report; the last line sums it up."""
    for group in report.groups:
        yield from _group(group)
        yield Text("")
    yield Text(summary(report), style="bold red" if report.wrong else "bold green")


def summary(report: Report) -> str:
    """One line."""
    notes = f"{report.notes} note{'' if report.notes == 1 else 's'}"
    unseen = sum(len(group.unseen) for group in report.groups)
    rest = f", {unseen} not seen" if unseen else ""
    return f"{report.wrong or 'nothing'} wrong, {notes}{rest}"


def _group(group: SubjectReport) -> Iterator[Text]:
    yield Text.assemble((group.name, "bold"), f": {group.about}")
    for finding in group.findings:
        yield from _finding(finding)
    for text in group.seen:
        yield Text.assemble(("  ok        ", "green"), printable(text))
    for missing in group.unseen:
        yield Text.assemble(("  not seen  ", "dim"), printable(f"{missing.what}: {missing.why}"))


def _finding(finding: Finding) -> Iterator[Text]:
    yield Text.assemble(
        (f"  {finding.level:<8}  ", _STYLES[finding.level]), (f"{finding.name}: {printable(finding.where)}", "bold")
    )
    parts = (
        ("read", finding.read), ("costs", finding.cost), ("measured", finding.measured), ("mend", finding.mend),
    )  # fmt: skip
    for label, text in parts:
        if text is not None:
            yield Text(f"            {label + ':':<10}{printable(text)}")
