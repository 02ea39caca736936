from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version

import click
import pytest
from click.testing import CliRunner

from control.cli import main as cli
from proxy.core.finder import core

MAIN = [sys.executable, "-c", "from control.cli.main import main; main()"]


def hostlane(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | settings
    return subprocess.run(
        [*MAIN, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_version() -> None:
    done = hostlane("--version")
    said = f"hostlane {version('hostlane')} (core: {core()})\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")


def test_version_of_the_plain_modules() -> None:
    done = hostlane("--version", HOSTLANE_PURE="1")
    assert done.stdout.endswith("(core: python)\n")


@pytest.mark.parametrize("arguments", [["--version"], ["demo"]])
def test_a_proxy_whose_modules_cannot_be_chosen_is_one_line(arguments: list[str]) -> None:
    done = hostlane(*arguments, HOSTLANE_PURE="yes")
    said = "hostlane: HOSTLANE_PURE: found 'yes'; allowed: 1 (the plain modules run), 0 or nothing\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help(flag: str) -> None:
    done = CliRunner().invoke(cli.hostlane, [flag])
    assert done.exit_code == 0
    listing = done.output.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listing] == list(cli.COMMANDS)
    assert not [line for line in listing if line.endswith("...")], "a first sentence is too long for the list"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_of_the_table_exists(name: str) -> None:
    done = CliRunner().invoke(cli.hostlane, [name, "--help"])
    assert done.exit_code == 0
    assert f"{name} [OPTIONS]" in done.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Usage: "),
        (["bogus"], "No such command 'bogus'"),
        (["--bogus"], "No such option"),
        (["proxy"], "/etc/hostlane/hostlane.yaml: no such file"),
        (["proxy", "--config"], "requires an argument"),
        (["proxy", "--bogus"], "No such option"),
        (["proxy", "--config", "x", "y"], "unexpected extra argument"),
        (["validate"], "/etc/hostlane/hostlane.yaml: no such file"),
        (["status", "x"], "unexpected extra argument"),
    ],
)
def test_wrong_usage(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(cli.hostlane, arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_commands_are_imported_when_they_are_called() -> None:
    code = (
        "import sys; from control.cli import main; main.hostlane(['--version'], standalone_mode=False);"
        "slow = {'trio', 'httpx', 'rich', 'yaml', 'structlog', 'msgspec'};"
        "print(sorted(slow & {name.split('.')[0] for name in sys.modules}));"
        "print(sorted(name for name in sys.modules if name.startswith('proxy')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    slow, of_the_proxy = done.stdout.splitlines()[-2:]
    assert slow == "[]"
    assert of_the_proxy == "['proxy', 'proxy.core', 'proxy.core.finder', 'proxy.core.modules']"


def test_asking_a_proxy_does_not_import_one() -> None:
    code = (
        "from control.cli import main;"
        "main.hostlane(['status', '--socket', '/nowhere'], standalone_mode=False)"
    )
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "httpx" in imported
    assert not {"proxy", "trio", "structlog"} & imported


def test_an_answer_that_finds_no_room() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*MAIN, "--help"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert (done.returncode, done.stderr) == (1, "hostlane: cannot write: no space left on device\n")


class Bug(click.Command):
    def invoke(self, ctx: click.Context) -> None:
        raise LookupError("two\nlines")


def test_a_bug_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli, "hostlane", lambda prog_name: Bug("bug").main([], prog_name))
    monkeypatch.delenv(cli.DEBUG_VARIABLE, raising=False)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        "hostlane: internal error, LookupError: two lines (HOSTLANE_DEBUG=1 shows where)\n"
    )
    monkeypatch.setenv(cli.DEBUG_VARIABLE, "1")
    with pytest.raises(LookupError):
        cli.main()
