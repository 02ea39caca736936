"""When a certificate is renewed (sans-IO). Times are seconds since 1970."""

from __future__ import annotations

HALF, SPREAD = 0.5, 0.1
"""Shares of its life after which a certificate is renewed: half, give or take a twentieth, so that hosts that joined
together do not renew together for ever."""
PROMPT, PROMPT_SPREAD = 5.0, 30.0
"""Seconds after which it is renewed when the control plane asks for that: not at once, because everybody must have the
new CA first, which takes two seconds; and not all hosts at a time."""


def renewal(issued: float, expires: float, chance: float) -> float:
    """When a certificate is due. `chance`: drawn for it, evenly from [0, 1)."""
    return issued + (expires - issued) * (HALF + (chance - 0.5) * SPREAD)


def prompt_renewal(asked: float, chance: float) -> float:
    """When a certificate is due that the control plane, at the time `asked`, wants renewed."""
    return asked + PROMPT + chance * PROMPT_SPREAD
