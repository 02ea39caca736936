from __future__ import annotations

from typing import Any

import pytest
from msgspec import UNSET

from proxy.config.partial import entries


@pytest.mark.parametrize(
    ("section", "expected"), [({"a": 1, "b": UNSET}, [("a", 1), ("b", UNSET)]), ({}, []), (UNSET, []), (None, [])]
)
def test_entries_of_what_may_be_wrong(section: Any, expected: list[tuple[str, Any]]) -> None:
    assert entries(section) == expected
