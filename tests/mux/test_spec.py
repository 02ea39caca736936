"""SPEC.md says what the code does: its byte examples, kinds, limits, states and reasons are compared with it."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy import mux
from proxy.errors import CloseReason
from proxy.links import handshake
from proxy.links.handshake import Hello, HelloReader, encode_hello
from proxy.mux import frames, session, sizes
from proxy.mux.frames import FrameKind, Open, Via
from proxy.mux.sizes import EARLY_LIMIT
from proxy.mux.stream import MAY_SEND, TABLE, StreamEvent, StreamState, bits
from proxy.pump.ourselves import MAX_HOPS
from tests.mux.pair import Side

SPEC = (Path(inspect.getfile(mux)).parent / "SPEC.md").read_text()


def examples() -> Iterator[tuple[str, dict[str, str], bytes]]:
    """Kind, fields and bytes of each block marked ``frame``."""
    for block in SPEC.split("```frame\n")[1:]:
        told, means = block.split("\n```")[0].splitlines()
        kind, *fields = means.removeprefix("means: ").split(" ")
        yield kind, dict(field.split("=") for field in fields), bytes.fromhex(told.removeprefix("hex: "))


def table(*header: str) -> list[list[str]]:
    """The rows of the table with this header."""
    lines = iter(SPEC.splitlines())
    wanted = "| " + " | ".join(header) + " |"
    assert any(line == wanted for line in lines), f"no table {wanted}"
    next(lines)
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def payload(kind: FrameKind, fields: dict[str, str]) -> bytes:
    """What the code makes of an example's fields."""
    match kind:
        case FrameKind.DATA | FrameKind.DATA_FIN:
            return bytes.fromhex(fields["data"])
        case FrameKind.OPEN:
            return frames.encode_open(call_of(fields))
        case FrameKind.OPENED:
            return b""
        case FrameKind.REFUSE | FrameKind.RST | FrameKind.GOAWAY:
            return frames.encode_reason(CloseReason[fields["reason"].upper()])
        case FrameKind.CREDIT:
            return frames.encode_u32(int(fields["bytes"]))
        case FrameKind.ACK:
            return frames.encode_u64(int(fields["offset"]))
        case FrameKind.PING | FrameKind.PONG:
            return frames.encode_u64(int(fields["token"]))
        case _:
            return encode_hello(greeting(fields))[frames.HEADER_SIZE :]


def call_of(fields: dict[str, str]) -> Open:
    host, _, port = fields.get("source", "").rpartition(":")
    via = Via(int(fields["hops"]), (host, int(port)) if host else None) if "hops" in fields else None
    return Open(fields["service"], int(fields["uid"]), fields["caller"], via)


def greeting(fields: dict[str, str]) -> Hello:
    numbers = ("received", "stream_credit", "max_streams", "reasons")
    told: dict[str, Any] = {name: int(value) if name in numbers else value for name, value in fields.items()}
    return Hello(**told | {name: fields[name] == "True" for name in ("resumes", "via")})


@pytest.mark.parametrize(("kind", "fields", "data"), list(examples()), ids=lambda value: str(value)[:20])
def test_an_example(kind: str, fields: dict[str, str], data: bytes) -> None:
    assert frames.encode(FrameKind[kind], int(fields.get("stream", 0)), payload(FrameKind[kind], fields)) == data


def test_every_kind_has_an_example() -> None:
    assert {kind for kind, _, _ in examples()} == {kind.name for kind in FrameKind}


def test_the_examples_are_understood() -> None:
    """In an order that makes sense, a session takes them all; HELLO is for the handshake."""
    by_kind: dict[str, list[bytes]] = {}
    for kind, fields, data in examples():
        by_kind.setdefault(kind, []).append(data)
        if kind == "HELLO":
            assert HelloReader().feed_untrusted(data) == greeting(fields)
    called = Side(dialler=False)
    for kind in ("OPEN", "DATA", "CREDIT", "DATA_FIN", "PING", "PONG", "GOAWAY"):
        for data in by_kind[kind][: 1 if kind == "DATA_FIN" else None]:
            called.feed(data)
    assert [call for _, call in called.calls] == [
        Open("redis", 1000),
        Open("web", frames.UNKNOWN_UID, "shop"),
        Open("web", 1000, "", Via(2)),
        Open("web", frames.UNKNOWN_UID, "", Via(0, ("10.9.0.1", 40000))),
    ]
    assert called.calls[0][0].got == b"PING\r\n"
    opener = Side()
    opener.open("redis")
    for kind in ("OPENED", "RST"):
        opener.feed(by_kind[kind][0])
    refused = Side()
    refused.open("nowhere")
    refused.feed(by_kind["REFUSE"][0])
    assert not opener.session.streams
    assert not refused.session.streams


def test_kinds() -> None:
    rows = table("kind", "name", "payload", "meaning")
    assert {(int(row[0], 16), row[1]) for row in rows} == {(kind.value, kind.name) for kind in FrameKind}
    assert len(rows) == len(FrameKind)


def test_states() -> None:
    rows = table("state", *(event.name for event in StreamEvent))
    told = {
        StreamState[name]: {event: StreamState[to] for event, to in zip(StreamEvent, cells, strict=True) if to != "–"}
        for name, *cells in rows
    }
    assert told == TABLE
    sentence = "DATA may be sent in CALLING, OPEN and FIN_RECEIVED."
    assert sentence in SPEC
    assert bits(*(StreamState[name] for name in ("CALLING", "OPEN", "FIN_RECEIVED"))) == MAY_SEND


def test_limits() -> None:
    places = (frames, session, sizes, handshake)
    for name, value, *_ in table("limit", "value", "unit", "why"):
        assert {getattr(place, name) for place in places if hasattr(place, name)} == {int(value)}, name


def test_early_bytes() -> None:
    assert EARLY_LIMIT == 16 << 10
    assert "Hostlane sends at most 16 KiB before that" in SPEC
    assert handshake.MIN_STREAM_CREDIT >= EARLY_LIMIT, "or a refused stream could not be said again at once"


def test_hello_fields() -> None:
    assert [row[0] for row in table("field", "type", "meaning")] == list(Hello.__struct_fields__)
    assert f"`{frames.MAGIC.decode()}`, the version as 2 bytes ({frames.VERSION})" in SPEC


@pytest.mark.failure("28")
def test_circles() -> None:
    assert f"Beyond\n{MAX_HOPS} hops a call is refused with LOOP" in SPEC


@pytest.mark.failure("29")
def test_what_an_older_peer_is_told() -> None:
    told = {reason: frames.known_to(frames.FIRST_REASONS, reason) for reason in CloseReason}
    newer = ",\n".join(f"`{to.label}` for {int(reason)}" for reason, to in told.items() if reason is not to)
    assert f"above {frames.FIRST_REASONS} is told another one in its place: {newer}." in SPEC


def test_close_reasons() -> None:
    rows = table("number", "reason")
    assert [(int(number), name) for number, name in rows] == [(reason.value, reason.label) for reason in CloseReason]


@pytest.mark.failure(2, 3)
def test_the_truth_table_leaves_no_case_out_and_none_open() -> None:
    """What it says is tested over real sockets in tests/pump/; here only that every case stands in it once."""
    seen = {}
    rows = table("closer", "how", "caller socket", "service socket", "other end sees")
    for closer, how, caller, service, sees in rows:
        for case in itertools.product([closer], [how], caller.split(", "), service.split(", ")):
            assert case not in seen
            seen[case] = sees
    written_to = ["close, written to", "SHUT_RD and close, written to"]
    hows = ["half-close", "close", "close, unread", *written_to, "reset", "killed", "killed, unread"]
    assert set(seen) == set(itertools.product(["caller", "service"], hows, ["unix", "tcp"], ["unix", "tcp"]))
    for (closer, how, caller, service), sees in seen.items():
        mine, other = (caller, service) if closer == "caller" else (service, caller)
        if how in written_to:
            assert sees == "EOF or ECONNRESET"
            continue
        aborted = how.endswith("unread") or (how == "reset" and mine == "tcp")
        assert sees == ("EOF" if not aborted else "ECONNRESET" if other == "tcp" else "EOF (AF_UNIX)")
