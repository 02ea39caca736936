"""The control server as systemd runs it."""

from __future__ import annotations

from control.base.reading.addresses import DEFAULT_CONTROL_CONFIG, DEFAULT_CONTROL_RUN_DIR
from control.base.system.systemd import Daemon
from control.server.config import DEFAULT_STATE_DIR

CONTROL = Daemon(
    name="hostlane-control",
    package="control.cli",
    files=("hostlane-control.service", "hostlane-control.sysusers"),
    config=DEFAULT_CONTROL_CONFIG,
    writes={"state_dir": DEFAULT_STATE_DIR, "run_dir": DEFAULT_CONTROL_RUN_DIR},
)
