"""Whom systemd's watchdog means, and what it is told. (A real process: tests/system/test_health.py.)"""

from __future__ import annotations

import os

import pytest

from control.base.system.watchdog import patience

pytestmark = pytest.mark.failure("26")


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "٥"}, None),
        ({"WATCHDOG_PID": str(os.getpid())}, None),
    ],
)
def test_whom_it_means(environment: dict[str, str], seconds: float | None) -> None:
    assert patience(environment) == seconds
