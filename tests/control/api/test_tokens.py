from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.api import tokens
from control.api.tokens import PREFIX, TokenRecord

FINGERPRINT = "ab" * 32
TOKEN = tokens.make("host-a", (FINGERPRINT,), bytes(range(40)))
TEXT = tokens.text(TOKEN)
GOOD: dict[str, Any] = {"id": TOKEN.id, "secret": TOKEN.secret, "host": "host-a", "ca": [FINGERPRINT]}


def encoded(value: object) -> str:
    return PREFIX + base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def test_there_and_back() -> None:
    assert tokens.parse_untrusted(TEXT) == TOKEN
    assert tokens.parse_untrusted(f"\n {TEXT}\r\n") == TOKEN
    assert tokens.parse_untrusted(encoded(GOOD)) == TOKEN
    assert tokens.is_id(TOKEN.id)


def test_the_secret_is_not_kept_and_not_shown() -> None:
    record = TokenRecord(host="host-a", hash=tokens.hash_of(TOKEN), expires=0)
    assert TOKEN.secret not in repr(TOKEN) + repr(record)
    assert tokens.matches(TOKEN, record)
    other = tokens.make("host-a", (FINGERPRINT,), bytes(range(39)) + b"x")
    assert not tokens.matches(other, record)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "../ca"},
        {"id": "AB" * 8},
        {"id": ""},
        {"id": 7},
        {"secret": ""},
        {"secret": "AAAA"},
        {"secret": "!" * 43},
        {"host": "Host A"},
        {"host": ""},
        {"ca": []},
        {"ca": [FINGERPRINT] * 5},
        {"ca": ["short"]},
        {"ca": FINGERPRINT},
    ],
)
def test_a_field_that_is_wrong(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="it is cut off or damaged"):
        tokens.parse_untrusted(encoded(GOOD | change))


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ("", "does not begin with hostlane1."),
        ("hostlane2.AAAA", "does not begin with hostlane1."),
        (PREFIX, "characters that no token has"),
        (PREFIX + "a b", "characters that no token has"),
        (PREFIX + "é", "characters that no token has"),
        (PREFIX + "A", "cut off or damaged"),
        (TEXT[:-5], "cut off or damaged"),
        (PREFIX + "A" * 5000, "more than 2048 characters"),
        (encoded([]), "cut off or damaged"),
    ],
)
def test_what_is_no_token(raw: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        tokens.parse_untrusted(raw)


@given(st.text() | st.text(alphabet="ABCabc019-_").map(lambda text: PREFIX + text) | st.binary().map(
    lambda data: PREFIX + base64.urlsafe_b64encode(data).decode()))
def test_any_text(raw: str) -> None:
    with pytest.raises(ValueError) as caught:
        tokens.parse_untrusted(raw)
    assert str(caught.value).isascii()


@given(st.integers(len(PREFIX), len(TEXT) - 1), st.sampled_from("AZaz09-_"))
def test_a_character_changed(where: int, character: str) -> None:
    """It is not a token, or another one; it never is this one with another secret, host or CA unnoticed."""
    changed = TEXT[:where] + character + TEXT[where + 1 :]
    try:
        found = tokens.parse_untrusted(changed)
    except ValueError:
        return
    record = TokenRecord(host="host-a", hash=tokens.hash_of(TOKEN), expires=0)
    same_secret = tokens.matches(found, record)
    assert (found == TOKEN) or not same_secret or found.id != TOKEN.id or found.host != "host-a" or found.ca != TOKEN.ca


def test_random_bytes_are_counted() -> None:
    with pytest.raises(ValueError):
        tokens.make("host-a", (FINGERPRINT,), b"short")


def test_where_the_control_plane_is() -> None:
    servers = ("10.0.0.5:7601", "[fd00::1]:7601", "control.example:7601")
    found = tokens.parse_untrusted(tokens.text(tokens.make("host-a", (FINGERPRINT,), bytes(40), servers, "shop")))
    assert (found.servers, found.mesh) == (servers, "shop")
    assert (TOKEN.servers, TOKEN.mesh) == ((), "")


@pytest.mark.parametrize("servers", [("10.0.0.5",), ("0.0.0.0:1",), ("a b:1",), ("10.0.0.5:7601",) * 9])
def test_servers_that_are_none(servers: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="cut off or damaged"):
        tokens.parse_untrusted(tokens.text(tokens.make("host-a", (FINGERPRINT,), bytes(40), servers)))


def test_an_old_token() -> None:
    """Without the fields that later versions have."""
    old = {"id": TOKEN.id, "secret": TOKEN.secret, "host": TOKEN.host, "ca": TOKEN.ca}
    assert tokens.parse_untrusted(tokens.PREFIX + tokens._encode(json.dumps(old).encode())) == TOKEN
