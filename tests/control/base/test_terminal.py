from __future__ import annotations

import pytest

from control.base import terminal
from control.base.errors import ConfigError, HostlaneError, StartError

PLAIN, START = HostlaneError("gone"), StartError("port in use")
CONFIG = ConfigError(["f.yaml:1: a: wrong", "f.yaml:2: b: wrong"])


@pytest.mark.parametrize(
    ("text", "shown"),
    [("ä b", "ä b"), ("a\x1b[2Jb", "a\\x1b[2Jb"), ("a\nb", "a\\nb"), ("", ""), ("\u202ex", "\\u202ex")],
)
def test_printable(text: str, shown: str) -> None:
    assert terminal.printable(text) == shown


def test_leaves() -> None:
    one, two = ValueError("1"), KeyboardInterrupt()
    assert list(terminal.leaves(one)) == [one]
    assert list(terminal.leaves(BaseExceptionGroup("", [one, BaseExceptionGroup("", [two])]))) == [one, two]


def test_fail(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        terminal.fail(PLAIN, 1)
    assert caught.value.code == 1
    with pytest.raises(SystemExit) as caught:
        terminal.fail("a\x1b[2Jb", 2)
    assert caught.value.code == 2
    assert capsys.readouterr().err == "hostlane: gone\nhostlane: a\\x1b[2Jb\n"


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (PLAIN, 1, "hostlane: gone\n"),
        (START, 2, "hostlane: port in use\n"),
        (CONFIG, 2, "f.yaml:1: a: wrong\nf.yaml:2: b: wrong\n"),
    ],
)
def test_what_goes_wrong_is_a_line_and_a_code(
    capsys: pytest.CaptureFixture[str], error: HostlaneError, code: int, text: str
) -> None:
    with pytest.raises(SystemExit) as caught, terminal.reported():
        raise error
    assert (caught.value.code, capsys.readouterr().err) == (code, text)
    assert terminal.ended_by(ExceptionGroup("", [error]), "it failed") == code
    assert capsys.readouterr().err == text


def test_ctrl_c_is_no_news(capsys: pytest.CaptureFixture[str]) -> None:
    assert terminal.ended_by(BaseExceptionGroup("", [KeyboardInterrupt(), PLAIN]), "it failed") == 1
    assert capsys.readouterr().err == ""
