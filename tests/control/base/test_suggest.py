from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from control.base.suggest import SuggestingGroup
from control.cli.main import hostlane


@click.group(cls=SuggestingGroup)
def some() -> None:
    """A group."""


@some.command("status")
def status() -> None:
    click.echo("done")


def test_a_command_is_found() -> None:
    assert CliRunner().invoke(some, ["status"]).output == "done\n"


@pytest.mark.parametrize(("word", "hint"), [("statsu", " Did you mean 'status'?"), ("zzz", "")])
def test_a_mistyped_command(word: str, hint: str) -> None:
    done = CliRunner().invoke(some, [word])
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (2, f"Error: No such command '{word}'.{hint}")


@pytest.mark.parametrize(
    ("words", "meant"),
    [(["statsu"], "status"), (["net", "plna"], "plan"), (["token", "creat"], "create"), (["hosts", "remvoe"], "remove"),
     (["pool", "reply"], "replay"), (["control", "initt"], "init"), (["ca", "ad"], "add")],
)  # fmt: skip
def test_all_groups_suggest(words: list[str], meant: str) -> None:
    assert f"Did you mean '{meant}'?" in CliRunner().invoke(hostlane, words).stderr
