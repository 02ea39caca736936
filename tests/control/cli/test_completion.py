from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from control.cli import completion


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_completion(shell: str) -> None:
    result = CliRunner().invoke(completion.completion, [shell])
    assert result.exit_code == 0
    assert "_HOSTLANE_COMPLETE" in result.stdout


def test_the_shell_of_the_environment() -> None:
    command = completion.completion
    assert CliRunner(env={"SHELL": "/usr/bin/fish"}).invoke(command).stdout.startswith("function")
    done = CliRunner(env={"SHELL": "/bin/csh"}).invoke(command)
    assert (done.exit_code, "allowed: bash, zsh, fish" in done.stderr) == (2, True)


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_it_installs_itself(shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    environment = {"XDG_DATA_HOME": str(tmp_path / "data"), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    done = CliRunner(env=environment).invoke(completion.completion, [shell, "--install"])
    assert done.exit_code == 0, done.output
    (written,) = (path for path in tmp_path.rglob("*hostlane*") if path.is_file())
    assert written.read_text() == completion.script(shell) + "\n"
    assert str(written) in done.stdout
    (tmp_path / "file").write_text("")
    environment = {"XDG_DATA_HOME": str(tmp_path / "file"), "XDG_CONFIG_HOME": str(tmp_path / "file")}
    done = CliRunner(env=environment).invoke(completion.completion, [shell, "--install"])
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)


def test_bash_takes_it(tmp_path: Path) -> None:
    script = tmp_path / "hostlane.bash"
    script.write_text(completion.script("bash"))
    code = f"source {script}; complete -p hostlane"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "hostlane" in done.stdout
