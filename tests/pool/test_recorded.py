from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.pool.recorded import BadLine, RecordedUse, encode, read

seconds = st.floats(0, 1e10)
uses = st.builds(RecordedUse, time=seconds, peer=st.text(min_size=1), duration=seconds, bytes=st.integers(0, 1 << 62))
GOOD = b'{"time": 1.5, "peer": "b", "duration": 0.25, "bytes": 7}\n'


@given(st.lists(uses))
def test_what_is_written_is_read(every: list[RecordedUse]) -> None:
    assert list(read(map(encode, every), "f")) == every


def test_a_line() -> None:
    [use] = read([GOOD], "f")
    assert (use.time, use.peer, use.duration, use.bytes) == (1.5, "b", 0.25, 7)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"1.5", b"-1"), (b"1.5", b"1e999"), (b"1.5", b'"1.5"'), (b'"b"', b'""'), (b'"b"', b"3"), (b"0.25", b"-0.1"),
        (b"7", b"-7"), (b"7", b"7.5"), (b'"bytes"', b'"octets"'), (b"}", b', "more": 1}'), (b"{", b""), (GOOD, b"\n"),
        (GOOD, b"\xff\xfe\n"), (b'"time": 1.5, ', b""),
    ],
)  # fmt: skip
def test_anything_else_is_an_error_with_its_place(before: bytes, after: bytes) -> None:
    with pytest.raises(BadLine) as caught:
        list(read([GOOD, GOOD.replace(before, after, 1)], "f.jsonl"))
    text = str(caught.value)
    assert text.startswith("f.jsonl:2: found ")
    assert "allowed: " in text
    assert text.isprintable()


def test_a_line_without_end_is_not_repeated() -> None:
    with pytest.raises(BadLine) as caught:
        list(read([b"x" * 1_000_000], "f"))
    assert len(str(caught.value)) < 250
