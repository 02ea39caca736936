from __future__ import annotations

from collections.abc import Iterator

import pytest

from proxy.pool import dialling as module
from tests.pool.hosts import Dialling


@pytest.fixture
def dialling(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dialling]:
    fake = Dialling()
    monkeypatch.setattr(module, "dial", fake)
    yield fake
    fake.close()
