"""The format of a recorded history (sans-IO): one use, that is one stream, in a line of JSON.

``{"time": 1718000000.25, "peer": "host-b", "duration": 0.04, "bytes": 512}``: when the stream began (seconds since
1970, or since whatever the file counts from), the host at the other end, for how many seconds it was open, and how many
bytes it moved in both directions. Exactly these keys. Lines need not be in the order of time: a proxy writes one when
a stream ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import isfinite

import msgspec

LONGEST_LINE = 4096
"""Bytes; a peer's name and three numbers take fewer. A file without line ends is read in pieces of this size."""
ALLOWED = '{"time": seconds, "peer": host, "duration": seconds, "bytes": whole number}, none of them negative'


class RecordedUse(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One stream, as the head of this file says."""

    time: float
    peer: str
    duration: float
    bytes: int


class BadLine(ValueError):
    """A line of a recorded history is wrong; the text says where and what is allowed."""


_decoder = msgspec.json.Decoder(RecordedUse)
_encoder = msgspec.json.Encoder()


def encode(use: RecordedUse) -> bytes:
    """One line, with its newline."""
    return _encoder.encode(use) + b"\n"


def read(lines: Iterable[bytes], name: str) -> Iterator[RecordedUse]:
    """The uses in `lines` of the file `name`. Raises BadLine at the first line that is not one."""
    for number, line in enumerate(lines, 1):
        try:
            use = _decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            use = None
        if use is None or not (_sound(use.time) and _sound(use.duration) and use.bytes >= 0 and use.peer):
            found = ascii(line[:60].decode("latin-1").rstrip("\r\n"))
            raise BadLine(f"{name}:{number}: found {found}; allowed: {ALLOWED}")
        yield use


def _sound(seconds: float) -> bool:
    return isfinite(seconds) and seconds >= 0
