from __future__ import annotations

from control.errors import HostlaneError
from control.store import base


def test_errors_are_lines_for_users() -> None:
    assert str(base.Conflict("hosts/a")) == "hosts/a was changed meanwhile"
    assert issubclass(base.LeaseGone, HostlaneError)
