"""Two pumps and a link, on the compiled core and on the plain one: what callers, services and observers see."""

from __future__ import annotations

import pytest

from tests.differential.both import SEEDS, compare


@pytest.mark.parametrize("seed", SEEDS)
def test_both_do_the_same(seed: int) -> None:
    compare("pump", seed)
