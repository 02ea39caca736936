from __future__ import annotations

import os

import pytest

from benchmarks import anatomy


def test_cpu_of_a_process_whose_name_has_parentheses() -> None:
    stat = "7 (a ) b) S 1 1 1 0 -1 0 0 0 0 0 250 50 0 0 20 0 1 0 0 0 0"
    tick = 1e6 / os.sysconf("SC_CLK_TCK")
    assert anatomy.cpu(stat) == (250 * tick, 50 * tick)


def test_calls() -> None:
    rows = ["    calls syscall", "--------- ----------", "     1200 sendto", "        7 epoll_wait", "     1207 total"]
    summary = "\n".join(rows)
    assert anatomy.calls(summary) == {"sendto": 1200, "epoll_wait": 7}


def test_what_it_cannot_run_is_said_before_anything_is_started(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ("--seconds", "echo=1", "ping", "ping=0", "ping=-1"):
        with pytest.raises(SystemExit):
            anatomy.kinds([wrong])
        assert wrong in capsys.readouterr().err.splitlines()[-1]
    assert anatomy.kinds(["req=16"]) == ["req=16"]
    assert len(anatomy.kinds([])) == 4
