"""The committed corpus: the byte examples of SPEC.md, alone and as conversations. ``python -m tests.fuzz.corpus``
writes them anew; inputs that found something are added by hand and stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

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


def main() -> None:
    """Write what is missing or different."""
    for name, content in seeds():
        path = CORPUS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


if __name__ == "__main__":
    main()
