"""Options that several commands have: what they let through, and what they say."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from control.base.options import A_FILE, of_a_host, seconds
from control.base.reading.addresses import DEFAULT_CONFIG


@click.command()
@of_a_host
@click.option("--wait", default="1s", callback=seconds)
def command(file: str, wait: float) -> None:
    click.echo(f"{file} {wait}")


def test_the_usual_file_and_times() -> None:
    assert CliRunner().invoke(command).stdout == f"{DEFAULT_CONFIG} 1.0\n"
    assert CliRunner().invoke(command, ["--config", "no/such.yaml", "--wait", "250ms"]).stdout == "no/such.yaml 0.25\n"


@pytest.mark.parametrize("wrong", ["1", "-1s", "2h", "soon"])
def test_a_time_that_is_none_is_wrong_usage(wrong: str) -> None:
    done = CliRunner().invoke(command, ["--wait", wrong])
    assert done.exit_code == 2
    assert "allowed: " in done.stderr


def test_a_file_that_may_not_be_read_is_for_the_reader_to_say(tmp_path: Path) -> None:
    (tmp_path / "file").touch(mode=0)
    assert A_FILE.convert(str(tmp_path / "file"), None, None) == str(tmp_path / "file")
    assert not A_FILE.readable
