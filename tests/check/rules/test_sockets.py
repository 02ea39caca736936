from __future__ import annotations

from typing import Any

import pytest

from proxy.check.report import Unchecked
from proxy.check.rules.sockets import MissingSocket, ServiceSocket, SocketDirectory, SocketFacts, judge
from tests.check.rules.lines import findings, seen, unseen

pytestmark = pytest.mark.failure(15)


def directory(**more: Any) -> SocketFacts:
    return SocketFacts(
        directories=(SocketDirectory(**{"path": "/run/x", "used_by": "run_dir", "mode": 0o40755, **more}),)
    )


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (directory(), []),
        (directory(mode=None), []),
        (directory(mode=0o40750), []),
        (directory(mode=0o40750, for_others=True), [("closed-directory", "wrong")]),
        (directory(mode=0o41777), []),
        (directory(mode=0o40777), [("open-directory", "wrong")]),
        (directory(read_only=True), [("read-only-directory", "wrong")]),
        (directory(is_directory=False), [("not-a-directory", "wrong")]),
    ],
)
def test_directories(facts: SocketFacts, expected: list[tuple[str, str]]) -> None:
    assert findings(judge(facts)) == expected


def socket(**more: Any) -> SocketFacts:
    return SocketFacts(sockets=(ServiceSocket(path="/srv/x", used_by="services.x.deliver", **more),))


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (socket(), []),
        (socket(exists=False), [("no-service-socket", "wrong")]),
        (socket(exists=False, directory_exists=False), [("no-service-socket", "wrong")]),
        (socket(is_socket=False), [("not-a-socket", "wrong")]),
    ],
)
def test_sockets(facts: SocketFacts, expected: list[tuple[str, str]]) -> None:
    assert findings(judge(facts)) == expected


@pytest.mark.failure("30")
def test_sockets_of_the_running_proxy() -> None:
    lost = MissingSocket(read="cannot listen on unix:/run/x: somebody")
    assert findings(judge(SocketFacts(missing=(lost, lost)))) == [("missing-socket", "wrong")] * 2
    assert unseen(judge(SocketFacts(missing=(Unchecked("sockets", "no answer"),)))) == ["sockets"]


def test_what_is_fine() -> None:
    assert seen(judge(directory())) == ["/run/x (run_dir), mode 0755"]
    assert seen(judge(socket())) == ["/srv/x (services.x.deliver) is a socket"]


def test_what_cannot_be_seen() -> None:
    hidden = Unchecked("/run/x", "no permission")
    assert unseen(judge(SocketFacts(directories=(hidden,), sockets=(hidden,)))) == ["/run/x", "/run/x"]
    assert unseen(judge(SocketFacts(configured=False))) == ["directories of Unix sockets"]
