"""Join tokens, without I/O: what is in one, and what the control plane keeps of it.

A token is ``hostlane1.`` and, in base64url, JSON: which record of the store it is about, a secret of 256 random bits,
the host that it is for, where the control plane is, and the fingerprints of the CAs, by which a host that knows nothing
yet recognises it. The store has the secret's SHA-256 only. (A hash made to be slow would protect secrets that can be
guessed; this one cannot.)
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re

import msgspec
from msgspec import Struct

from control.base.reading.addresses import host_port
from control.base.reading.units import host_name

PREFIX = "hostlane1."
MAX_LENGTH = 2048
"""Characters; a token has some 300."""
SECRET_BYTES = 32
ID_BYTES = 8
MAX_SERVERS = 8
MAX_ROOTS = 4
"""Two during a rotation."""

_BASE64URL = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_ID = re.compile(rf"[0-9a-f]{{{2 * ID_BYTES}}}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


class JoinToken(Struct, frozen=True, kw_only=True):
    """What a token says.

    Attributes:
        secret: base64url of `SECRET_BYTES`.
        ca: fingerprints (`control.api.certificates.fingerprint`) of the CAs when it was made.
        servers: ``HOST:PORT`` of the control servers, as far as was known; none in a token of an earlier version.
        mesh: its name; empty in a token of an earlier version.
    """

    id: str
    secret: str
    host: str
    ca: tuple[str, ...]
    servers: tuple[str, ...] = ()
    mesh: str = ""

    def __repr__(self) -> str:
        return f"Token(id={self.id!r}, host={self.host!r})"


class TokenRecord(Struct, frozen=True, kw_only=True):
    """What the store has under ``tokens/<id>``: times in seconds since 1970; `used`: None until it is."""

    host: str
    hash: str
    expires: float
    used: float | None = None


def make(
    host: str, ca: tuple[str, ...], random: bytes, servers: tuple[str, ...] = (), mesh: str = ""
) -> JoinToken:
    """A token, out of ``ID_BYTES + SECRET_BYTES`` random bytes."""
    if len(random) != ID_BYTES + SECRET_BYTES:
        raise ValueError(f"{len(random)} random bytes")
    id, secret = random[:ID_BYTES].hex(), _encode(random[ID_BYTES:])
    return JoinToken(id=id, secret=secret, host=host, ca=ca, servers=servers, mesh=mesh)


def text(token: JoinToken) -> str:
    """The token as it is handed over."""
    return PREFIX + _encode(msgspec.json.encode(token))


def parse_untrusted(raw: str) -> JoinToken:
    """The token in a text; white space around it does not matter. Raises only ValueError, which repeats none of it."""
    raw = raw.strip()
    if not raw.startswith(PREFIX):
        raise ValueError(f"it does not begin with {PREFIX}")
    if len(raw) > MAX_LENGTH:
        raise ValueError(f"it has more than {MAX_LENGTH} characters")
    body = raw.removeprefix(PREFIX)
    if _BASE64URL.fullmatch(body) is None:
        raise ValueError("it has characters that no token has")
    try:
        token = msgspec.json.decode(_decode(body), type=JoinToken)
        host_name(token.host)
        well_formed = (
            _ID.fullmatch(token.id) is not None
            and _BASE64URL.fullmatch(token.secret) is not None
            and len(_decode(token.secret)) == SECRET_BYTES
            and 1 <= len(token.ca) <= MAX_ROOTS
            and all(_SHA256.fullmatch(each) for each in token.ca)
            and len(token.servers) <= MAX_SERVERS
            and all(host_port(each).hostport == each for each in token.servers)
            and (not token.mesh or host_name(token.mesh) == token.mesh)
        )
    except (binascii.Error, msgspec.DecodeError, ValueError):
        well_formed = False
    if not well_formed:
        raise ValueError("it is cut off or damaged")
    return token


def is_id(raw: str) -> bool:
    """Whether this can be the id of a token (and so part of a key of the store)."""
    return _ID.fullmatch(raw) is not None


def hash_of(token: JoinToken) -> str:
    """What is kept of the secret."""
    return hashlib.sha256(_decode(token.secret)).hexdigest()


def matches(token: JoinToken, record: TokenRecord) -> bool:
    """Whether the secret is the one of the record; takes as long either way."""
    return hmac.compare_digest(hash_of(token), record.hash)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(data: str) -> bytes:
    return base64.urlsafe_b64decode(data + "=" * (-len(data) % 4))
