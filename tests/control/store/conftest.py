"""A store of each kind, for the tests that run against both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from control.store.base import Store
from control.store.sqlite import open_sqlite


@pytest.fixture(params=["sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """An open store that began empty."""
    async with open_sqlite(str(tmp_path / "store.db")) as opened:
        yield opened
