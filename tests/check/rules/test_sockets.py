from __future__ import annotations

from typing import Any

import pytest

from proxy.check.report import Unseen
from proxy.check.rules.sockets import Directory, Facts, Socket, judge
from tests.check.rules.lines import findings, seen, unseen

pytestmark = pytest.mark.failure(15)


def directory(**more: Any) -> Facts:
    return Facts(directories=(Directory(**{"path": "/run/x", "used_by": "run_dir", "mode": 0o40755, **more}),))


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
def test_directories(facts: Facts, expected: list[tuple[str, str]]) -> None:
    assert findings(judge(facts)) == expected


def socket(**more: Any) -> Facts:
    return Facts(sockets=(Socket(path="/srv/x", used_by="services.x.deliver", **more),))


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (socket(), []),
        (socket(exists=False), [("no-service-socket", "wrong")]),
        (socket(exists=False, directory_exists=False), [("no-service-socket", "wrong")]),
        (socket(is_socket=False), [("not-a-socket", "wrong")]),
    ],
)
def test_sockets(facts: Facts, expected: list[tuple[str, str]]) -> None:
    assert findings(judge(facts)) == expected


def test_what_is_fine() -> None:
    assert seen(judge(directory())) == ["/run/x (run_dir), mode 0755"]
    assert seen(judge(socket())) == ["/srv/x (services.x.deliver) is a socket"]


def test_what_cannot_be_seen() -> None:
    hidden = Unseen("/run/x", "no permission")
    assert unseen(judge(Facts(directories=(hidden,), sockets=(hidden,)))) == ["/run/x", "/run/x"]
    assert unseen(judge(Facts(configured=False))) == ["directories of Unix sockets"]
