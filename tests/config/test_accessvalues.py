from __future__ import annotations

import pytest

from proxy.config.accessvalues import ONLY, SHARE, TARGET, only, share, target


def test_where_to() -> None:
    assert [target(raw) for raw in (None, "stderr", "/var/log//b/")] == [
        None,
        "stderr",
        "/var/log/b",
    ]


@pytest.mark.parametrize("raw", ["stdout", "log", 1, True, [], {}])
def test_where_nothing_goes_to(raw: object) -> None:
    with pytest.raises(ValueError, match="found ") as caught:
        target(raw)
    assert str(caught.value).endswith(f"allowed: {TARGET}")


def test_which() -> None:
    assert [only(raw) for raw in ("all", "failed", {"slower_than": "50ms"})] == ["all", "failed", 0.05]


@pytest.mark.parametrize("raw", [None, "slow", 0.05, {}, {"faster_than": "1s"}, {"slower_than": "1s", "x": 1}])
def test_which_are_none(raw: object) -> None:
    with pytest.raises(ValueError, match="found ") as caught:
        only(raw)
    assert str(caught.value).endswith(f"allowed: {ONLY}")


@pytest.mark.parametrize("raw", [{"slower_than": 50}, {"slower_than": "2h"}, {"slower_than": None}])
def test_a_time_that_is_none(raw: object) -> None:
    with pytest.raises(ValueError, match="found .*; allowed: "):
        only(raw)


def test_part() -> None:
    assert [share(raw) for raw in (1, 1.0, 0.001)] == [1.0, 1.0, 0.001]


@pytest.mark.parametrize("raw", [0, -0.5, 1.5, "0.5", True, None, float("nan")])
def test_what_is_no_part(raw: object) -> None:
    with pytest.raises(ValueError, match="found ") as caught:
        share(raw)
    assert str(caught.value).endswith(f"allowed: {SHARE}")
