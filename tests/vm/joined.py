"""From nothing to an answer under systemd, as docs/operations.md and docs/join.md say: control server, token, host."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

from proxy.demo import netns
from tests.tools.documents import block
from tests.tools.servers import Echo
from tests.vm.inside import group
from tests.vm.supervised import CONFIG, PATIENCE, adds, becomes, log, main_process, shows, systemctl

ADDRESS = "10.77.0.1"
SERVICE, CALLED = ("127.0.0.1", 6379), ("127.0.0.1", 79)
"""Where the service is, and where it is called: at a port below 1024, which only systemd may open for the proxy."""
UNITS = Path("/etc/systemd/system")


def run() -> None:
    CONFIG.unlink()
    for unit in ("hostlane", "hostlane-control"):
        adds("slow", "[Service]\nTimeoutStartSec=600\n", f"{unit}.service")
    with Echo(f"tcp:{SERVICE[0]}:{SERVICE[1]}"):
        if token := set_up():
            joined(token)
            called()
            restarted()


def typed(*words: str) -> tuple[int, list[str]]:
    done = subprocess.run(["hostlane", *words], capture_output=True, text=True, check=False)
    return done.returncode, [*done.stdout.splitlines(), *done.stderr.splitlines()]


def answers() -> bool:
    """Whether a call is echoed."""
    try:
        with socket.create_connection(CALLED, timeout=PATIENCE) as sock:
            sock.sendall(b"there and back")
            return sock.recv(100) == b"there and back"
    except OSError:
        return False


def active(unit: str) -> bool:
    argv = ["systemctl", "is-active", "--quiet", f"{unit}.service"]
    return subprocess.run(argv, check=False).returncode == 0


def set_up() -> str | None:
    """The token, if a control server gave one."""
    with group("hostlane control init --service") as checks:
        os.umask(0o077)  # as careful administrators have it
        netns.run(["ip", "address", "add", "10.0.0.5/32", "dev", "lo"])
        _, *words = block("docs/operations.md", "hostlane control init --listen 10.0.0.5:7601 --service").split()
        said = typed(*words)
        runs = said[0] == 0 and any("hostlane-control runs" in line for line in said[1])
        checks.check("says that it runs", runs, said)
        checks.check("it does", active("hostlane-control"), said)
        owner = Path("/var/lib/hostlane-control").owner()
        checks.check("as a user of its own", owner == "hostlane-control", owner)
        again = typed("control", "init", "--service")
        checks.check("a second time is refused", again[0] == 2 and active("hostlane-control"), again)
        code, lines = typed("token", "create", "--host", "vm")
        checks.check("hostlane token create", code == 0, lines)
        return next((line for line in lines if line.startswith("hostlane1.")), None)
    return None


def joined(token: str) -> None:
    with group("hostlane join --service") as checks:
        offer, use = f"echo=tcp:{SERVICE[0]}:{SERVICE[1]}", f"echo=tcp:{CALLED[0]}:{CALLED[1]}"
        said = typed("join", token, "--listen", f"{ADDRESS}:7600", "--offer", offer, "--use", use, "--service")
        checks.check("says that it runs", said[0] == 0 and any("hostlane runs" in line for line in said[1]), said)
        checks.check("it does", active("hostlane"), log())
        users = [shows("User"), Path("/var/lib/hostlane").owner()]
        checks.check("as a user of its own", users == ["hostlane"] * 2, users)
        checks.check("without a capability", capabilities() == ["0" * 16], capabilities())
        checks.check("it is watched", shows("WatchdogUSec") == "30s", shows("WatchdogUSec"))
        argv = ["systemd-analyze", "security", "--no-pager", "--threshold=20"]
        for unit in ("hostlane", "hostlane-control"):
            done = subprocess.run([*argv, f"{unit}.service"], capture_output=True, text=True, check=False)
            checks.check(f"security of {unit}", done.returncode == 0, done.stdout.splitlines()[-1:])


def capabilities() -> list[str]:
    lines = Path(f"/proc/{main_process()}/status").read_text().splitlines()
    return sorted({line.split()[1] for line in lines if line.startswith(("CapPrm:", "CapBnd:", "CapAmb:"))})


def called() -> None:
    with group("a host that has joined") as checks:
        checks.check("a call is answered, at a port below 1024", becomes(answers), log())
        code, lines = typed("hosts")
        checks.check("the control server knows it", code == 0 and any("vm" in line for line in lines), lines)
        checks.check("systemctl reload", systemctl("reload", "hostlane") == 0 and answers(), log())


def restarted() -> None:
    """Whoever calls meanwhile waits: systemd has the socket."""
    with group("restarts") as checks:
        before = main_process()
        again = systemctl("restart", "--no-block", "hostlane") == 0 and becomes(answers)
        # It may be the old process that has answered: it serves until it ends.
        again = again and becomes(lambda: main_process() not in (0, before))
        checks.check("systemctl restart", again, log())
        before, restarts = main_process(), int(shows("NRestarts"))
        os.kill(before, signal.SIGKILL)
        checks.check("killed, it is started again", becomes(lambda: int(shows("NRestarts")) == restarts + 1), log())
        checks.check("and answers", becomes(answers), log())
        checks.check("the control server restarts", systemctl("restart", "hostlane-control") == 0 and answers())
        stopped = systemctl("stop", "hostlane.socket", "hostlane", "hostlane-control") == 0
        checks.check("systemctl stop", stopped and not active("hostlane"))
        checks.check("nothing of it listens", not answers())
