from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.mesh.schedule import prompt_renewal, renewal

chances = st.floats(0, 1, exclude_max=True)


@given(st.floats(0, 2e9), st.floats(1, 1e6), chances)
def test_around_half_of_its_life(issued: float, life: float, chance: float) -> None:
    assert issued + 0.44 * life <= renewal(issued, issued + life, chance) <= issued + 0.56 * life


@given(st.floats(0, 2e9), chances)
def test_promptly(asked: float, chance: float) -> None:
    assert asked + 5 <= prompt_renewal(asked, chance) <= asked + 35
