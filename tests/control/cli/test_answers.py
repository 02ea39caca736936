"""Each command that has --json has a type for what it prints, and docs/cli.md is what that says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click
import jsonschema
import pytest

from control.cli.answers import ANSWERS, schema_of
from control.cli.main import hostlane
from tests.tools.answerdocs import markdown

DOC = Path(__file__).resolve().parents[3] / "docs" / "cli.md"
BEGIN, END = "<!-- from here on written by tests/control/cli/test_answers.py -->\n", "\n<!-- until here -->"


def with_json(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[str]:
    """The commands that have the option --json."""
    if any("--json" in parameter.opts for parameter in command.params):
        yield " ".join(words)
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from with_json(found, (*words, name))


def test_every_command_with_json_has_an_answer() -> None:
    documented = {command.partition(" --")[0] for command in ANSWERS}
    assert set(with_json(hostlane)) == documented


@pytest.mark.parametrize("command", ANSWERS)
def test_every_answer_has_a_schema(command: str) -> None:
    found = schema_of(command)
    jsonschema.Draft202012Validator.check_schema(found)
    assert found["title"] == f"hostlane {command} --json"


def test_the_document_says_what_the_types_say() -> None:
    text = DOC.read_text()
    before, _, rest = text.partition(BEGIN)
    found, _, after = rest.partition(END)
    if os.environ.get("HOSTLANE_WRITE_DOCS"):
        DOC.write_text(f"{before}{BEGIN}{markdown()}{END}{after}")
        return
    assert found == markdown(), "write it again: HOSTLANE_WRITE_DOCS=1 pytest tests/control/cli/test_answers.py"
