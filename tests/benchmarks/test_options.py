from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import options


def test_all_of_it_by_default() -> None:
    asked = options.parse([])
    assert asked.measures == options.MEASURES
    assert asked.paths == options.PATHS
    assert (asked.rounds, asked.trials, asked.quick) == (7, 30, False)


def test_some_paths_run_only_if_they_are_named() -> None:
    asked = options.parse(["--paths", "hostlane-unretained,hostlane-scraped-mtls,hostlane,hostlane-scraped"])
    assert asked.paths == ("hostlane", *options.EXTRA_PATHS)


def test_quick_is_less_of_everything_unless_said_otherwise() -> None:
    asked = options.parse(["--quick", "--rounds", "9"])
    assert asked.quick
    assert asked.paths == options.PLAIN_PATHS
    assert asked.rounds == 9
    assert asked.seconds < options.parse([]).seconds


def test_words_keep_the_order_of_the_table() -> None:
    asked = options.parse(["--only", "connect,persistent", "--paths", "hostlane,haproxy"])
    assert asked.measures == ("persistent", "connect")
    assert asked.paths == ("haproxy", "hostlane")


def test_other_builds_are_paths_beside_ours(tmp_path: Path) -> None:
    program = tmp_path / "hostlane"
    program.touch(mode=0o755)
    more = ["--program", f"old={program}", "--program", f"off={program},HOSTLANE_PURE=1,X="]
    asked = options.parse(["--quick", *more])
    at = options.PLAIN_PATHS.index("hostlane") + 1
    assert asked.paths == (*options.PLAIN_PATHS[:at], "old", "off", *options.PLAIN_PATHS[at:])
    assert asked.builds == (
        options.OtherBuild("old", program),
        options.OtherBuild("off", program, (("HOSTLANE_PURE", "1"), ("X", ""))),
    )
    assert options.parse(more).paths[-3:] == ("hostlane-mtls", "old-mtls", "off-mtls")
    assert options.parse(["--paths", "direct", *more]).paths == ("direct", "old", "off")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--paths", "nginx"], "'nginx' is no path; allowed: direct, bridge, haproxy"),
        (["--only", "speed"], "'speed' is no measure; allowed: persistent, connect"),
        (["--rounds", "-1"], "more than 0"),
        (["--program", "old"], "'old' names no program; allowed: NAME=PATH[,KEY=VALUE...]"),
        (["--program", "old="], "'old=' names no program; allowed: NAME=PATH[,KEY=VALUE...]"),
        (["--program", "Old/1=/bin/true"], "'Old/1' is no name; allowed: 1 to 24 of a-z, 0-9 and -"),
        (["--program", "haproxy=/bin/true"], "'haproxy' is a path already; allowed: any name but direct, bridge"),
        (["--program", "old=/none"], "'/none' is not there; allowed: a build's executable"),
        (["--program", "old=/etc/passwd"], "'/etc/passwd' cannot be executed; allowed: a build's executable"),
        (["--program", "old=/etc"], "'/etc' is a folder; allowed: a build's executable"),
        (["--program", "old=/bin/true,PURE"], "'PURE' is no setting of the environment; allowed: NAME=PATH[,KEY"),
        (["--program", "a=/bin/true", "--program", "a=/bin/sh"], "'a' is given twice; allowed: a name of its own"),
        (["--program", "a=/bin/true", "--program", "a-mtls=/bin/sh"], "'a-mtls' is what 'a' with mutual TLS is called"),
    ],
)
def test_what_is_not_allowed(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        options.parse(argv)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
