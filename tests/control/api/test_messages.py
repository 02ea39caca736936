from __future__ import annotations

import msgspec
import pytest

from control.api import messages

KINDS = [
    messages.PeerStatus, messages.UpstreamStatus, messages.ServiceStatus, messages.Status, messages.LinkInfo,
    messages.StreamInfo, messages.AdminErrorBody,
]  # fmt: skip

PEER = {"name": "b", "address": "10.77.0.2:7600", "state": "up", "links": 2, "streams": 1, "waiting": 0}


@pytest.mark.parametrize("kind", KINDS)
def test_messages_are_immutable(kind: type[msgspec.Struct]) -> None:
    assert kind.__struct_config__.frozen


def test_round_trip() -> None:
    status = messages.Status(
        host="a", pid=1, version="0", uptime_s=1.5, security="none", sessions=2, streams=3, memory_used=4,
        memory_limit=5, streams_opened=6, streams_refused=7, handshakes_avoided=8,
        peers=[messages.PeerStatus(
            name="b", address="b:1", state="down", links=0, streams=0, waiting=1, last_error="no", retry_in_s=0.5)],
        upstreams=[messages.UpstreamStatus(service="redis", listen="unix:/r", offered_by=["b"])],
        services=[messages.ServiceStatus(name="web", deliver="unix:/w", streams=0)],
    )  # fmt: skip
    assert msgspec.json.decode(msgspec.json.encode(status), type=messages.Status) == status


def test_a_newer_proxy_may_tell_more_and_an_older_one_less() -> None:
    peer = msgspec.convert({**PEER, "colour": "blue"}, messages.PeerStatus)
    assert peer == messages.PeerStatus(**PEER)
    assert (peer.last_error, peer.retry_in_s) == (None, None)


@pytest.mark.parametrize("wrong", [{"state": "asleep"}, {"links": "2"}, {"links": None}])
def test_anything_else_is_not_ours(wrong: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**PEER, **wrong}, messages.PeerStatus)
