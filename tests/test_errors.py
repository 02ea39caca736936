"""The error tree and the close reasons."""

from __future__ import annotations

import pytest

from proxy.errors import CloseReason, ConfigError, HandshakeError, HostlaneError, ProtocolError, StartError

NUMBERS = {
    "finished": 0,
    "aborted": 1,
    "no_such_service": 2,
    "connect_failed": 3,
    "connect_timeout": 4,
    "overloaded": 5,
    "over_budget": 6,
    "peer_unreachable": 7,
    "link_lost": 8,
    "peer_timeout": 9,
    "protocol_error": 10,
    "draining": 11,
    "stopped": 12,
    "duplicate": 13,
    "not_allowed": 14,
    "wrong_host": 15,
}


def test_close_reasons_keep_their_numbers_and_names() -> None:
    """They travel between versions, and people search logs for them. New ones go behind."""
    found = {reason.label: int(reason) for reason in CloseReason}
    assert {name: found.get(name) for name in NUMBERS} == NUMBERS
    assert sorted(found.values()) == list(range(len(found)))


def test_every_close_reason_fits_its_byte() -> None:
    assert all(0 <= reason < 256 for reason in CloseReason)


@pytest.mark.parametrize("kind", [ConfigError, StartError, ProtocolError, HandshakeError])
def test_expected_errors_have_one_base(kind: type[HostlaneError]) -> None:
    assert issubclass(kind, HostlaneError)


def test_a_configuration_has_one_line_for_each_problem() -> None:
    error = ConfigError(["f:1: a", "f:2: b"])
    assert str(error) == "f:1: a\nf:2: b"
    assert error.problems == ["f:1: a", "f:2: b"]


def test_a_handshake_fails_for_a_reason() -> None:
    assert HandshakeError("no").reason is CloseReason.PROTOCOL_ERROR
    assert HandshakeError("no", CloseReason.FINISHED).reason is CloseReason.FINISHED
    assert HandshakeError("no", CloseReason.WRONG_HOST).reason is CloseReason.WRONG_HOST
