"""Places for handshakes: each source has some, all together have more."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from proxy.errors import CloseReason, HandshakeError
from proxy.links.handshakelimiter import HandshakeLimiter


@pytest.mark.failure(18)
def test_one_source_leaves_places_for_others() -> None:
    limiter = HandshakeLimiter(total=5, per_source=3)
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(limiter.take("10.0.0.1"))
        with pytest.raises(HandshakeError, match="^3 handshakes from this address are under way$") as caught:
            held.enter_context(limiter.take("10.0.0.1"))
        assert caught.value.reason is CloseReason.OVERLOADED
        for source in ("10.0.0.2", "10.0.0.3"):
            held.enter_context(limiter.take(source))
        with pytest.raises(HandshakeError, match="^5 handshakes are under way$") as caught:
            held.enter_context(limiter.take("10.0.0.4"))
        assert caught.value.reason is CloseReason.OVERLOADED
    with limiter.take("10.0.0.1"), limiter.take("10.0.0.4"):
        pass


def test_a_place_is_free_again_however_its_handshake_ended() -> None:
    limiter = HandshakeLimiter(total=1, per_source=1)
    for _ in range(3):
        with pytest.raises(ValueError, match="a bug"), limiter.take("10.0.0.1"):
            raise ValueError("a bug")
    with limiter.take("10.0.0.2"):
        pass
    assert limiter._taken == {}, "nothing is remembered of a source that is gone"
