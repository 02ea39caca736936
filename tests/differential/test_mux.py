"""Two sessions that talk to each other, on the compiled core and on the plain one: every byte, call and counter."""

from __future__ import annotations

import pytest

from tests.differential.both import SEEDS, compare


@pytest.mark.parametrize("seed", SEEDS)
def test_both_do_the_same(seed: int) -> None:
    compare("mux", seed)
