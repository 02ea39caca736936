"""What can be said without booting: `make vm` is the test of the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vm import image
from tests.vm.emulator import PREFIX, verdicts


def test_verdicts_stand_between_whatever_else_is_on_the_console() -> None:
    console = [
        "[    0.1] Linux version\r\n", f'{PREFIX}{{"check": "a", "ok": true}}\r\n', "\r\n",
        f"{PREFIX}cannot load igb\n", f'[ 1.2] half a line {PREFIX}{{"end": "3s"}}\n', f"{PREFIX}7\n",
    ]  # fmt: skip
    said: list[str] = []
    assert list(verdicts(console, said.append)) == [{"check": "a", "ok": True}, {"end": "3s"}]
    assert said == ["[    0.1] Linux version", f"{PREFIX}cannot load igb", f"{PREFIX}7"]


def test_what_is_missing_is_said() -> None:
    with pytest.raises(image.MissingError, match="no-such-program is not installed"):
        image._run(["no-such-program"])
    with pytest.raises(image.MissingError, match="ls: .*/no-such-folder"):
        image._run(["ls", Path("/no-such-folder")])


def test_every_module_of_the_first_process_is_in_the_image() -> None:
    script = Path(image.__file__).with_name("init").read_text()
    line = next(line for line in script.splitlines() if "for module" in line)
    assert set(line.removesuffix("; do").split()[3:]) == set(image.MODULES)
