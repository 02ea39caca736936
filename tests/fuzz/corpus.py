"""The committed corpus: the byte examples of SPEC.md, alone and as conversations. ``python -m tests.fuzz.corpus``
writes them anew; inputs that found something are added by hand and stay.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from proxy.links.resumemark import SUFFIX
from proxy.mux import frames
from proxy.mux.frames import FrameKind, encode
from tests.fuzz.targets import ANSWER, DIALLED, END, READ, REFUSE
from tests.mux.test_spec import examples

CORPUS = Path(__file__).parent / "corpus"


def seeds() -> Iterator[tuple[str, bytes]]:
    """Path below the corpus, and content."""
    told = [(kind, data) for kind, _, data in examples()]
    for number, (kind, data) in enumerate(told):
        if kind in ("HELLO", "GOAWAY"):
            yield f"hello/spec-{number:02}-{kind.lower()}", bytes([40]) + data
            yield f"mark/spec-{number:02}-{kind.lower()}", bytes([0, 40]) + data
        for name, what in (("called", ANSWER | READ), ("calling", DIALLED | 2)):
            yield f"session/spec-{number:02}-{kind.lower()}-{name}", bytes([what]) + data
    by_kind: dict[str, bytes] = {}
    for kind, data in told:
        by_kind.setdefault(kind, data)
    answered = b"".join(by_kind[kind] for kind in ("OPEN", "DATA", "CREDIT", "PING", "DATA_FIN"))
    for name, what in (("accepted", ANSWER | READ | END), ("refused", REFUSE), ("ignored", 0)):
        yield f"session/call-{name}", bytes([what]) + answered + bytes(range(97))
    opener = b"".join(by_kind[kind] for kind in ("OPENED", "DATA", "DATA_FIN", "ACK", "GOAWAY"))
    yield "session/answer", bytes([DIALLED | 2 | END]) + opener
    acked = encode(FrameKind.ACK, 0, frames.encode_u64(8))
    again = by_kind["OPEN"] + by_kind["RST"]
    yield "session/again-and-again", bytes([ANSWER | END]) + (again + acked) * 20


    for records, cut in ((1, 100), (3, 9)):
        yield f"mark/client-hello-{records}", bytes([0, cut]) + client_hello(records)


def client_hello(records: int) -> bytes:
    """A small ClientHello with a mark, in so many records."""
    name = ("0123456789abcdef" * 2 + SUFFIX).encode()
    entry = struct.pack(">BH", 0, len(name)) + name
    extensions = struct.pack(">HHH", 10, 4, 2) + b"\x00\x1d"
    extensions += struct.pack(">HHH", 0, len(entry) + 2, len(entry)) + entry
    body = b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x02\x13\x01" + b"\x01\x00" + struct.pack(">H", len(extensions))
    message = b"\x01" + (len(body) + len(extensions)).to_bytes(3, "big") + body + extensions
    size = -(-len(message) // records)
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + struct.pack(">H", len(piece)) + piece for piece in pieces)


def main() -> None:
    """Write what is missing or different."""
    for name, content in seeds():
        path = CORPUS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


if __name__ == "__main__":
    main()
