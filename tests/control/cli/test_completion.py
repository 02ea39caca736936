from __future__ import annotations

import pytest
from click.testing import CliRunner

from control.cli.completion import completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    result = CliRunner().invoke(completion, [shell])
    assert result.exit_code == 0
    assert "_HOSTLANE_COMPLETE" in result.stdout
