"""The proxy as systemd runs it: which units there are, and the one that is made for this host (sans-IO)."""

from __future__ import annotations

from control.base.reading.addresses import DEFAULT_CONFIG, DEFAULT_RUN_DIR, DEFAULT_SOCKET_DIR, UnixAddress
from control.base.system.systemd import Daemon
from proxy.config.schema import Config
from proxy.setup.configuration import DEFAULT_STATE_DIR

PROXY = Daemon(
    name="hostlane",
    package="proxy.setup",
    files=("hostlane.service", "hostlane-net.service", "hostlane.sysusers", "hostlane.tmpfiles"),
    config=DEFAULT_CONFIG,
    writes={"control.state_dir": DEFAULT_STATE_DIR, "run_dir": DEFAULT_RUN_DIR, "socket_dir": DEFAULT_SOCKET_DIR},
)
SOCKETS = "hostlane.socket"

_TEXT = """\
# Written by hostlane join: systemd opens these sockets, from the machine's start on and while no proxy runs, so that
# callers wait. The proxy opens upstreams that are not here by itself, and the links' port: others must see when nobody
# is there.
[Unit]
Description=Sockets of Hostlane's callers

[Socket]
{lines}
SocketMode=0666
Backlog=4096
FreeBind=yes

[Install]
WantedBy=sockets.target
"""


def socket_unit(config: Config) -> str | None:
    """The text of ``hostlane.socket``, with the sockets of all upstreams; None: there are none that have a name."""
    places = [upstream.listen for upstream in config.upstreams.values()]
    found = [place.path if isinstance(place, UnixAddress) else place.hostport for place in places]
    lines = [f"ListenStream={each.replace('%', '%%')}" for each in found]
    return _TEXT.format(lines="\n".join(lines)) if lines else None
