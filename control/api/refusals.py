"""Why a control server did not do what it was asked: it refused, or nobody answered."""

from __future__ import annotations

import os
import ssl

import httpx
import msgspec
import trio

from control.api import mesh
from control.base.errors import HostlaneError

__all__ = ["NEEDS_TOKEN", "Denied", "Unreachable", "denied_by", "reason_of"]

NEEDS_TOKEN = {
    "revoked": "was revoked",
    "expired": "has expired, says the control plane's clock",
    "early": "is not valid yet, says the control plane's clock",
    "dropped": "is of a CA that is no longer in force",
}
"""Codes of refusals of the certificate that the host has shown, after which only a new token helps, in words."""


class Unreachable(HostlaneError):
    """No control server answered, or one that did fell silent; ``str()`` says why for each."""


class Denied(HostlaneError):
    """A control server refused the request.

    Attributes:
        code: a word for programs (`control.api.mesh.ControlErrorBody`).
        text: one line for people, as is ``str()``.
        status: the HTTP status.
    """

    def __init__(self, code: str, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.code, self.text, self.status = code, text, status


def denied_by(status: int, raw: bytes) -> Denied:
    """What an answer that is no agreement says."""
    try:
        refused = msgspec.json.decode(raw, type=mesh.ControlErrorBody)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Denied("", f"HTTP status {status}, and no reason of a control server", status)
    return Denied(refused.code, refused.error, status)


def reason_of(error: BaseException, patience: float) -> str:
    """The innermost reason, which httpx and trio wrap, in one line. `patience`: seconds that were waited."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    if isinstance(error, BaseExceptionGroup):
        return reason_of(error.exceptions[0], patience)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"no TLS with it: {getattr(error, 'reason', None) or error}"
    # The number's own text: trio's has the address, which stands there already.
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    if isinstance(error, (trio.TooSlowError, trio.Cancelled, httpx.TimeoutException)):
        return f"no answer for {patience:.0f} s"
    return " ".join(str(error).split()) or "the connection broke"
