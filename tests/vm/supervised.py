"""The units of configs/systemd under the service manager that they are for, which no namespace has: whoever reads of
sd_notify(3) in tests/system/test_health.py believes that systemd does what it says. Here it does.

The units are used as they stand, with the watchdog's 30 seconds, and installed as the documents say, word for word.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.tools.servers import Echo
from tests.vm.inside import group

CONFIG = Path("/etc/hostlane/hostlane.yaml")
SERVICE = "hostlane.service"
UPSTREAM = "/run/hostlane-services/redis.sock"
HEAD = f"""\
host: vm
links: {{listen: 10.77.0.1:7600, security: none}}
upstreams: {{redis: {{listen: unix:{UPSTREAM}}}}}
services: {{redis: {{deliver: unix:/run/redis.sock}}}}
"""
SOURCES = Path("/opt/hostlane")
"""Hostlane's, as far as they are about the units."""
PATIENCE = 400.0
"""Seconds for what systemd does after the watchdog's 30: ends a process that hangs, and starts one, which takes an
emulated machine a minute or two where others work beside it."""
SLOW = "[Service]\nTimeoutStartSec=600\n"
"""What is added to the unit for the same reason: systemd gives a start up after 90 s."""
EXPOSED = 80
"""What `systemd-analyze security` may say at most, of 100."""


def prepare() -> str:
    """Returns what runs here, in a line."""
    subprocess.run(["ip", "address", "add", "10.77.0.1/24", "dev", "lo"], check=True)
    CONFIG.parent.mkdir(parents=True)
    CONFIG.write_text(HEAD)
    adds("slow", SLOW)
    version = subprocess.run(["systemctl", "--version"], capture_output=True, text=True, check=True).stdout
    first = Path("/proc/1/comm").read_text().strip()
    return f"Linux {os.uname().release}, Python {sys.version.split()[0]}, {first} {version.split()[1]}"


def adds(name: str, text: str, unit: str = SERVICE) -> None:
    """What an operator adds to the service's unit."""
    added = Path(f"/run/systemd/system/{unit}.d/{name}.conf")
    added.parent.mkdir(parents=True, exist_ok=True)
    added.write_text(text)
    systemctl("daemon-reload")


def install(unit: str, page: str) -> tuple[int, str]:
    """Type what the page says about the unit: exit code, and what was typed and said."""
    blocks = re.findall(r"```sh\n(.*?)```", (SOURCES / "docs" / page).read_text(), re.DOTALL)
    (block,) = [text for text in blocks if text.startswith(f"cp configs/systemd/{unit} ")]
    done = subprocess.run(["sh", "-exc", block], cwd=SOURCES, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def systemctl(*words: str) -> int:
    return subprocess.run(["systemctl", *words], check=False).returncode


def shows(name: str) -> str:
    """A property of the service."""
    argv = ["systemctl", "show", "--value", f"--property={name}", SERVICE]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def log() -> list[str]:
    """The last lines of the service, and what systemd says of it."""
    argv = ["journalctl", f"--unit={SERVICE}", "--lines=12", "--no-pager", "--output=cat"]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.splitlines()


def main_process() -> int:
    return int(shows("MainPID"))


def answering() -> int:
    """The process that has the proxy's sockets; 0: none."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        try:
            sock.connect("/run/hostlane/admin.sock")
            sock.sendall(b"GET /status HTTP/1.1\r\nHost: hostlane\r\nConnection: close\r\n\r\n")
            said = b"".join(iter(lambda: sock.recv(65536), b""))
            return int(json.loads(said.partition(b"\r\n\r\n")[2])["pid"])
        except (OSError, ValueError, KeyError):
            return 0


def calls() -> bool:
    """Whether a call through the upstream is echoed."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        try:
            sock.connect(UPSTREAM)
            sock.sendall(b"there and back")
            return sock.recv(100) == b"there and back"
        except OSError:
            return False


def becomes(what: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def run() -> None:
    with Echo("unix:/run/redis.sock"):
        files()
        started()
        hung("a loop that hangs")
        taken_over()
        hung("a successor's loop that hangs")
        stopped()
        activated()


def files() -> None:
    with group("systemd-analyze") as checks:
        units = sorted(str(path) for path in (SOURCES / "configs" / "systemd").iterdir())
        argv = ["systemd-analyze", "verify", "--man=no", *units]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        complaints = [line for line in done.stderr.splitlines() if "hostlane" in line]
        checks.check("verify has nothing to say", done.returncode == 0 and not complaints, done.stderr.splitlines())


def started() -> None:
    with group("service") as checks:
        checks.check("installed as docs/upgrade.md says", (said := install(SERVICE, "upgrade.md"))[0] == 0, said)
        checks.check("systemctl returns when it is ready", calls(), log())
        checks.check("its main process is the proxy", main_process() == answering() > 0, main_process())
        checks.check("it is watched", shows("WatchdogUSec") == "30s", shows("WatchdogUSec"))
        argv = ["systemd-analyze", "security", "--no-pager", f"--threshold={EXPOSED}", SERVICE]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        checks.check("security", done.returncode == 0, done.stdout.splitlines()[-1:])
        checks.check("systemctl reload", systemctl("reload", SERVICE) == 0 and calls())


def fed() -> bool:
    """Whether the watchdog hears something, twice."""
    for _ in range(2):
        before = shows("WatchdogTimestampMonotonic")
        if not becomes(lambda before=before: shows("WatchdogTimestampMonotonic") != before):  # type: ignore[misc]
            return False
    return True


def hung(name: str) -> None:
    """SIGSTOP: nothing turns any more, and nothing says so."""
    with group(name) as checks:
        before, restarts = main_process(), int(shows("NRestarts"))
        checks.check("the watchdog is fed", fed())
        os.kill(before, signal.SIGSTOP)
        checks.check("is restarted", becomes(lambda: int(shows("NRestarts")) == restarts + 1), shows("NRestarts"))
        ready = becomes(lambda: shows("ActiveState") == "active" and calls())
        checks.check("is ready again", ready, log())
        now = main_process()
        checks.check("by another process", now != before and now == answering(), [before, now])


def taken_over() -> None:
    with group("takeover") as checks:
        before, restarts = main_process(), shows("NRestarts")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(UPSTREAM)
            sock.sendall(b"before")
            checks.check("a call is open", sock.recv(100) == b"before")
            systemctl("kill", "--kill-whom=main", "--signal=SIGUSR2", SERVICE)
            follows = becomes(lambda: main_process() not in (0, before))
            checks.check("MAINPID follows", follows, [before, main_process()])
            checks.check("to the one that has the sockets", becomes(lambda: answering() == main_process()), answering())
            sock.sendall(b"after")
            checks.check("the call goes on", sock.recv(100) == b"after")
        checks.check("new calls are served", calls())
        gone = Path(f"/proc/{before}")
        checks.check("the old process ends", becomes(lambda: not gone.exists()))
        goes_on = shows("ActiveState") == "active" and shows("NRestarts") == restarts
        checks.check("that is no end of the service", goes_on)
        checks.check("WATCHDOG_PID follows: it is fed", fed())
        time.sleep(40)  # longer than the watchdog's 30 s
        checks.check("for longer than it waits", shows("NRestarts") == restarts and calls())


def stopped() -> None:
    with group("stop") as checks:
        checks.check("systemctl stop", systemctl("stop", SERVICE) == 0)
        seen = [shows("Result"), shows("ActiveState")]
        checks.check("is clean", seen == ["success", "inactive"], seen)
        checks.check("the directory of the sockets that serve stays", Path(UPSTREAM).parent.is_dir())


def activated() -> None:
    """hostlane.socket: systemd has the sockets before the proxy is there."""
    with group("socket unit") as checks:
        said = install("hostlane.socket", "upgrade.md")
        checks.check("installed as docs/upgrade.md says", said[0] == 0 and calls(), said)
        checks.check("the proxy has systemd's sockets", answering() == main_process() > 0, log())
        systemctl("stop", SERVICE)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(UPSTREAM)
            sock.sendall(b"early")
            checks.check("a call starts the proxy, and is served", sock.recv(100) == b"early")
        restarted = systemctl("restart", "--no-block", SERVICE) == 0 and calls()
        checks.check("systemctl restart, and calls in between wait", restarted)
        becomes(lambda: shows("ActiveState") == "active")
        checks.check("systemctl stop", systemctl("stop", "hostlane.socket", SERVICE) == 0)
