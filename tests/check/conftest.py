from __future__ import annotations

from collections.abc import Iterator

import pytest

from proxy.demo import netns
from tests.check.ground import Ground


@pytest.fixture
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    """A piece of network for one test (mark it ``netns``), diagnosed by the groups in ``ONLY`` of its module."""
    with Ground(getattr(request.module, "ONLY", ())) as made:
        yield made


@pytest.fixture
def ground_prefix(ground: Ground) -> list[str]:
    """What stands before a command line that shall run there."""
    return netns.inside(ground.here, [])
