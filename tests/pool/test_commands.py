from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from proxy.pool import commands as poolcommands
from proxy.pool.recorded import RecordedUse, encode

COLUMNS = ["setting", "price", "warm hits", "opened ahead", "waited", "handshakes", "link-seconds", "links held"]


def run(*arguments: object, text: bytes = b"") -> Result:
    return CliRunner().invoke(poolcommands.pool, [str(argument) for argument in arguments], input=text)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "uses.jsonl"
    path.write_bytes(b"".join(encode(RecordedUse(time=40.0 * n, peer="b", duration=0.5, bytes=9)) for n in range(100)))
    return path


def test_a_table(file: Path) -> None:
    done = run("replay", file)
    assert (done.exit_code, done.stderr) == (0, "")
    first, header, *rows = done.stdout.splitlines()
    assert first == "100 uses of 1 peers in 1.1 h"
    assert [name for name in COLUMNS if name in header] == COLUMNS
    assert rows[0].split()[:5] == ["fixed", "30", "s", "-", "0"]
    assert [row.split("  ")[0] for row in rows if row.startswith("fixed")] == [
        "fixed 30 s", "fixed 60 s", "fixed 300 s", "fixed 900 s",
    ]  # fmt: skip


def test_json(file: Path) -> None:
    done = run("replay", "--json", file)
    assert (done.exit_code, done.stderr) == (0, "")
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    by_name = {row["setting"]: row for row in rows}
    fixed = by_name["fixed 60 s"]
    assert (fixed["warm"], fixed["waited"], fixed["handshakes"], fixed["price_ms"]) == (99, 1, 1, None)
    same = by_name["learnt, as long as 60 s"]
    assert same["link_seconds"] <= fixed["link_seconds"]
    assert {"learnt at 1 ms", "learnt at 10 ms", "learnt at 100 ms"} <= by_name.keys()


def test_standard_input(file: Path) -> None:
    assert run("replay", "-", text=file.read_bytes()).stdout == run("replay", file).stdout


def test_without_opening_ahead(file: Path) -> None:
    rows = json.loads(run("replay", "--json", "--no-ahead", file).stdout)
    assert {row["ahead"] for row in rows} == {0}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "found no use; allowed: at least one line"),
        (b'{"time": 1}\n', "1: found '{\"time\": 1}'; allowed: {"),
    ],
    ids=["empty", "malformed"],
)
def test_a_file_that_is_wrong(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "f"
    path.write_bytes(content)
    done = run("replay", path)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"hostlane: {path}:")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_file_without_an_end() -> None:
    done = run("replay", "/dev/zero")
    assert done.exit_code == 2
    assert done.stderr.startswith("hostlane: /dev/zero:1: found '\\x00")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    done = run("replay", tmp_path / "missing")
    assert (done.exit_code, done.stderr) == (2, f"hostlane: {tmp_path}/missing: no such file or directory\n")


@pytest.mark.parametrize("arguments", [["--handshake", "0"], ["--min", "10", "--max", "5"], ["--min", "-1"]])
def test_settings_that_make_no_sense(file: Path, arguments: list[str]) -> None:
    done = run("replay", file, *arguments)
    assert done.exit_code == 2
    assert "allowed: " in done.stderr
