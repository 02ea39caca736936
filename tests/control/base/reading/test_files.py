"""Any kind of configuration is read in the same way; tests/config/test_schema.py goes through the errors with the
proxy's."""

from __future__ import annotations

from pathlib import Path as FilePath

import pytest
from msgspec import Struct

from control.base.errors import ConfigError
from control.base.reading import files
from control.base.reading.yamlmap import Document, Path


class Cup(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    volume: int
    handle: bool = True


def check(cup: Cup, document: Document, unknown: set[Path]) -> None:
    if cup.volume == 13:
        document.problem(("volume",), "found 13; allowed: another number")


def test_a_file_becomes_an_object(tmp_path: FilePath) -> None:
    (tmp_path / "cup.yaml").write_text("volume: 3\n")
    assert files.load(tmp_path / "cup.yaml", Cup, check, "volume") == Cup(volume=3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cup:1: found an empty file; allowed: a mapping with at least volume"),
        ("volume: 13\n", "cup:1: volume: found 13; allowed: another number"),
        ("volume: 3\ncolour: red\n", "cup:2: colour: unknown key"),
    ],
)
def test_problems_are_said_with_their_place(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        files.parse(text, "cup", Cup, check, "volume")
    assert [problem[: len(said)] for problem in caught.value.problems] == [said]


def test_a_missing_file(tmp_path: FilePath) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        files.load(tmp_path / "none", Cup, check, "volume")


def test_a_short_form_is_written_out_before_anything_is_checked() -> None:
    def expand(document: Document) -> None:
        if document.data == "cup":
            document.data = {"volume": 2}

    assert files.parse("cup", "f", Cup, check, "volume", expand) == files.parse("volume: 2", "f", Cup, check, "volume")
