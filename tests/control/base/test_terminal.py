from __future__ import annotations

import os
import subprocess
import sys

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


POOR = [
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "latin-1"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "POSIX"},
    {"PYTHONIOENCODING": "utf-8"},
]


@pytest.mark.failure("32")
@pytest.mark.parametrize("environment", POOR, ids=str)
def test_every_terminal_shows_everything(environment: dict[str, str]) -> None:
    """Signs of ours, letters of others, and bytes of a file name that are no letters."""
    code = (
        "import sys; from control.base import terminal; terminal.write_anything(); from rich.console import Console; "
        "text = '\\u2502 1 \\u2192 2 \\u2026 \\u6f22 \\udcff'; print(text); "
        "Console().print(text); print(text, file=sys.stderr); "
        "import click; click.echo(text); click.echo(text, err=True)"
    )
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG", "PYTHON"))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=inherited | environment, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    if "PYTHONUTF8" in environment or "ascii" in environment.values():
        assert (done.stdout + done.stderr).isascii()
    for line in (*done.stdout.splitlines(), *done.stderr.splitlines()):
        assert line.endswith(b"\\udcff")
        assert b"1 -> 2 ..." in line or "│ 1 → 2 …".encode() in line
