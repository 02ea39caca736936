"""Has systemd run the proxy, as a user of its own: the user, the directories, the units.

A package of the distribution may have brought user and units already; what is there is used as it is.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

from proxy.errors import StartError

USER = "hostlane"
UNITS = ("hostlane.service", "hostlane-net.service")
PLACES = {
    "hostlane.service": "etc/systemd/system/hostlane.service",
    "hostlane-net.service": "etc/systemd/system/hostlane-net.service",
    "hostlane.tmpfiles": "etc/tmpfiles.d/hostlane.conf",
    "hostlane.sysusers": "etc/sysusers.d/hostlane.conf",
}
PACKAGED = {
    "hostlane.service": "usr/lib/systemd/system/hostlane.service",
    "hostlane-net.service": "usr/lib/systemd/system/hostlane-net.service",
    "hostlane-control.service": "usr/lib/systemd/system/hostlane-control.service",
    "hostlane.tmpfiles": "usr/lib/tmpfiles.d/hostlane.conf",
    "hostlane.sysusers": "usr/lib/sysusers.d/hostlane.conf",
}
"""Where a package has them, seen from the root."""
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
"""What a service does not see (ProtectHome=, PrivateTmp=)."""
TIMEOUT = 120.0
"""Seconds for one command: systemctl waits until the proxy is ready."""

Run = Callable[[Sequence[str]], None]


def run(argv: Sequence[str]) -> None:
    """Run a command to its end. Raises StartError with the last line that it wrote."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        why = (error.strerror or "failed").lower() if isinstance(error, OSError) else f"not done in {TIMEOUT:g} s"
        raise StartError(f"{' '.join(argv)}: {why}") from None
    if done.returncode:
        said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise StartError(f"{' '.join(argv)}: {said[0] if said else f'exit code {done.returncode}'}")


def command() -> str:
    """The command ``hostlane`` of the very installation that runs now."""
    return os.path.join(os.path.dirname(os.path.abspath(sys.executable)), "hostlane")


class SystemdService:
    """One host's proxy under systemd.

    Args:
        config: of the configuration file, absolute; executable: the command ``hostlane``; root: where the machine's
            files are, for tests.
    """

    def __init__(self, config: str, executable: str, *, root: Path = Path("/"), run: Run = run) -> None:
        self._config, self._executable, self._root, self._run = config, executable, root, run

    def check(self, paths: Sequence[str]) -> None:
        """Raise StartError if it cannot be installed here; `paths`: of what the service must reach. Changes nothing."""
        if os.geteuid() != 0:
            raise StartError(f"--service: found user {os.geteuid()}; allowed: root, as units are installed (sudo)")
        if not (self._root / "run/systemd/system").is_dir() or shutil.which("systemctl") is None:
            raise StartError("--service: systemd does not run here; without it: hostlane proxy --config FILE")
        for path in (self._executable, os.path.realpath(sys.executable), *paths):
            if (hidden := next((each for each in HIDDEN if f"{path}/".startswith(f"{each}/")), None)) is not None:
                found = f"{path} is in {hidden}, which services do not see"
                raise StartError(f"--service: {found}; allowed: elsewhere, such as /opt/hostlane")
        if not os.access(self._root / self._executable.lstrip("/"), os.X_OK):
            raise StartError(
                f"--service: no command {self._executable}; install Hostlane with its command, such as by pip"
            )

    def install(self) -> None:
        """Make the user, the directory of sockets that serve, and the units, as far as they are missing. Raises
        StartError.
        """
        for name in PLACES:
            self._place(name)
        self._run(["systemd-sysusers", str(self._found("hostlane.sysusers"))])
        self._run(["systemd-tmpfiles", "--create", str(self._found("hostlane.tmpfiles"))])
        self._run(["systemctl", "daemon-reload"])

    def own(self, state_dir: str) -> None:
        """Give the state_dir to the service's user. Raises StartError."""
        try:
            account = pwd.getpwnam(USER)
            for folder, _, names in os.walk(state_dir):
                for path in (folder, *(os.path.join(folder, name) for name in names)):
                    os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
                for link in os.scandir(folder):
                    if link.is_symlink():
                        os.lchown(link.path, account.pw_uid, account.pw_gid)
        except (KeyError, OSError) as error:
            why = f"no user {USER}" if isinstance(error, KeyError) else (error.strerror or "failed").lower()
            raise StartError(f"giving {state_dir} to user {USER}: {why}") from None

    def start(self) -> None:
        """Start it now, and with the machine. Returns when the proxy is ready. Raises StartError."""
        try:
            self._run(["systemctl", "enable", "--now", UNITS[0]])
        except StartError as error:
            raise StartError(f"{error} (the proxy's own words: journalctl --unit hostlane)") from None

    def _found(self, name: str) -> Path:
        packaged = self._root / PACKAGED[name]
        return packaged if packaged.exists() else self._root / PLACES[name]

    def _place(self, name: str) -> None:
        place = self._found(name)
        if place == self._root / PACKAGED[name] and self._config == DEFAULT_CONFIG:
            return
        place = self._root / PLACES[name]
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(rendered(name, self._executable, self._config))
        except OSError as error:
            raise StartError(f"cannot write {place}: {(error.strerror or 'failed').lower()}") from None


DEFAULT_CONFIG = "/etc/hostlane/hostlane.yaml"


def rendered(name: str, executable: str, config: str) -> str:
    """The text of one of the files in ``units``."""
    text = files("proxy.setup").joinpath("units", name).read_text(encoding="utf-8")
    return text.replace("@HOSTLANE@", _word(executable)).replace("@CONFIG@", _word(config))


def _word(text: str) -> str:
    """As one word of a unit's command line (systemd.service(5), systemd.unit(5))."""
    escaped = text.replace("%", "%%").replace("$", "$$")
    plain = all(character.isalnum() or character in "/._-+%$" for character in escaped)
    return escaped if plain else '"' + escaped.replace("\\", "\\\\").replace('"', '\\"') + '"'
