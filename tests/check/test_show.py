from __future__ import annotations

import pytest

from proxy.check.report import Finding, Line, Passed, Report, Unchecked, group, report
from proxy.check.show import lines, summary

WRONG = Finding(
    name="arp-flux", level="wrong", where="mv0", read="x = 1", cost="much", mend="x = 0", measured="17 of them"
)
NOTE = Finding(name="late", level="note", where="y", read="y = 1", cost="little", mend="y = 0")


def made(*found: Line) -> Report:
    return report([group("sysctls", "kernel settings", found)])


def test_a_report() -> None:
    text = "\n".join(line.plain for line in lines(made(WRONG, NOTE, Passed("z = 0"), Unchecked("w", "no permission"))))
    assert (
        text
        == """\
sysctls: kernel settings
  wrong     arp-flux: mv0
            read:     x = 1
            costs:    much
            measured: 17 of them
            mend:     x = 0
  note      late: y
            read:     y = 1
            costs:    little
            mend:     y = 0
  ok        z = 0
  not seen  w: no permission

1 wrong, 1 note, 1 not seen"""
    )


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ([], "nothing wrong, 0 notes"),
        ([NOTE], "nothing wrong, 1 note"),
        ([WRONG, WRONG, NOTE, NOTE], "2 wrong, 2 notes"),
        ([Unchecked("w", "no")], "nothing wrong, 0 notes, 1 not seen"),
    ],
)
def test_summary(found: list[Line], text: str) -> None:
    assert summary(made(*found)) == text


def test_what_a_terminal_could_act_on() -> None:
    """A container's name, or a path in somebody's configuration."""
    assert not any("\x1b" in line.plain for line in lines(made(Passed("\x1b[2J"))))
