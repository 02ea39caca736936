"""How the sizes of the out-buffer hang together."""

from __future__ import annotations

from proxy.mux.frames import HEADER_SIZE, MAX_CONTROL, MAX_DATA
from proxy.mux.sizes import CHUNK, FAST_LIMIT, SLAB_SIZE


def test_where_the_fast_path_may_begin_a_frame_there_is_room_for_any_that_it_makes() -> None:
    assert FAST_LIMIT + HEADER_SIZE + max(CHUNK, MAX_CONTROL) <= SLAB_SIZE


def test_a_slab_holds_several_of_the_largest_frames() -> None:
    assert 3 * (HEADER_SIZE + MAX_DATA) <= SLAB_SIZE
