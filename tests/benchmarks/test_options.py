from __future__ import annotations

import pytest

from benchmarks import options


def test_all_of_it_by_default() -> None:
    asked = options.parse([])
    assert asked.measures == options.MEASURES
    assert asked.paths == options.PATHS
    assert (asked.rounds, asked.trials, asked.quick) == (5, 30, False)


def test_some_paths_run_only_if_they_are_named() -> None:
    asked = options.parse(["--paths", "hostlane-unretained,hostlane"])
    assert asked.paths == ("hostlane", *options.EXTRA_PATHS)


def test_quick_is_less_of_everything_unless_said_otherwise() -> None:
    asked = options.parse(["--quick", "--rounds", "7"])
    assert asked.quick
    assert asked.paths == options.PLAIN_PATHS
    assert asked.rounds == 7
    assert asked.seconds < options.parse([]).seconds


def test_words_keep_the_order_of_the_table() -> None:
    asked = options.parse(["--only", "connect,persistent", "--paths", "hostlane,haproxy"])
    assert asked.measures == ("persistent", "connect")
    assert asked.paths == ("haproxy", "hostlane")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--paths", "nginx"], "'nginx' is no path; allowed: direct, bridge, haproxy"),
        (["--only", "speed"], "'speed' is no measure; allowed: persistent, connect"),
        (["--rounds", "-1"], "more than 0"),
    ],
)
def test_what_is_not_allowed(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        options.parse(argv)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
