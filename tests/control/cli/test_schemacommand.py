from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from control.cli.schemacommand import schema


@pytest.mark.parametrize(("arguments", "key"), [([], "host"), (["host"], "host"), (["control"], "name")])
def test_schema(arguments: list[str], key: str) -> None:
    done = CliRunner().invoke(schema, arguments)
    assert done.exit_code == 0
    assert key in json.loads(done.stdout)["required"]
