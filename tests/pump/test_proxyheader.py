"""The PROXY protocol header: read back as its specification says, and compared with the documentation."""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.mux.frames import MAX_NAME, UNKNOWN_UID, Open
from proxy.pump.proxyheader import MAX_HEADER, header

DOC = (Path(__file__).resolve().parents[2] / "docs" / "callers.md").read_text()


class Read(NamedTuple):
    """What a receiver makes of a header."""

    source: str
    destination: str
    tlvs: dict[int, bytes]
    behind: bytes


def read(data: bytes) -> Read:
    """Section 2.2 of the specification, as a receiver follows it."""
    assert data[:12] == b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a"
    assert data[12] >> 4 == 2, "version"
    assert data[12] & 15 == 1, "PROXY, not LOCAL"
    (length,) = struct.unpack_from("!H", data, 14)
    body, behind = data[16 : 16 + length], data[16 + length :]
    assert len(body) == length
    width = {0x11: 4, 0x21: 16}[data[13]]
    ports = struct.unpack_from("!HH", body, 2 * width)
    source, destination = (
        f"{ipaddress.ip_address(body[at * width : at * width + width])} {ports[at]}" for at in (0, 1)
    )
    return Read(source, destination, dict(tlvs(body[2 * width + 4 :])), behind)


def tlvs(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        kind, length = struct.unpack_from("!BH", data)
        yield kind, data[3 : 3 + length]
        assert len(data) >= 3 + length
        data = data[3 + length :]


names = st.text(min_size=1, max_size=60)


@given(names, st.integers(0, UNKNOWN_UID), st.just("") | names, names)
def test_a_receiver_finds_who_called(service: str, uid: int, caller: str, host: str) -> None:
    said = read(header(Open(service, uid, caller), host, "10.0.0.1:65535", "10.0.0.2:1") + b"early")
    wanted = {0x02: service.encode(), 0xE0: host.encode()}
    if caller:
        wanted[0xE1] = caller.encode()
    if uid != UNKNOWN_UID:
        wanted[0xE2] = uid.to_bytes(4, "big")
    assert said == Read("10.0.0.1 65535", "10.0.0.2 1", wanted, b"early")


@pytest.mark.parametrize(
    ("source", "destination", "read_as"),
    [
        ("10.77.0.1:41000", "10.77.0.2:7600", ("10.77.0.1 41000", "10.77.0.2 7600")),
        ("[fd00::1]:1", "[fd00::2]:2", ("fd00::1 1", "fd00::2 2")),
        ("[fe80::1%eth0]:1", "[fe80::2%eth0]:2", ("fe80::1 1", "fe80::2 2")),
    ],
)
def test_addresses(source: str, destination: str, read_as: tuple[str, str]) -> None:
    said = read(header(Open("web"), "host-a", source, destination))
    assert (said.source, said.destination) == read_as
    assert said.behind == b""


def test_the_longest_one() -> None:
    name = "n" * MAX_NAME
    assert len(header(Open(name, 0, name), name, "[::1]:1", "[::2]:2")) == MAX_HEADER


def examples() -> Iterator[tuple[bytes, dict[str, str]]]:
    for block in DOC.split("```header\n")[1:]:
        told, means = block.partition("\nmeans: ")[::2]
        yield bytes.fromhex(told.removeprefix("hex: ")), dict(re.findall(r"(\w+)=(\S*)", means.partition("```")[0]))


@pytest.mark.parametrize(("data", "fields"), list(examples()))
def test_the_documented_bytes(data: bytes, fields: dict[str, str]) -> None:
    call = Open(fields["service"], int(fields["uid"]), fields["caller"])
    assert header(call, fields["host"], fields["source"], fields["destination"]) == data


def test_there_are_documented_bytes() -> None:
    assert len(list(examples())) == 2
