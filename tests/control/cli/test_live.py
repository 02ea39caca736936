from __future__ import annotations

import pytest

from control.cli import live, tables

TABLE = tables.table_of(["a", "b>"], [("x" * 300, "1")])


def test_tables_are_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    live.show([TABLE, TABLE])
    assert capsys.readouterr().out.count("x" * 300) == 2


def test_without_a_terminal_frames_follow_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with live.screen() as show:
        show([TABLE])
        show([TABLE])
        raise KeyboardInterrupt
    assert capsys.readouterr().out.count("x" * 300) == 2


def test_looking_again_and_again(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "INTERVAL", 0.0)
    left = iter(range(3))

    def look() -> tuple[int, bytes]:
        number = next(left, None)
        if number is None:
            raise KeyboardInterrupt
        return number, b"%d" % number

    live.watch(look, True, lambda number: [TABLE])
    assert capsys.readouterr().out == "0\n1\n2\n"
