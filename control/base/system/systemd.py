"""Has systemd run one of Hostlane's daemons, as a user of its own: the user, the directories, the units.

A package of the distribution may have brought user and units already; what is there is used as it is.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from control.base.errors import StartError

HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
"""What a service does not see (ProtectHome=, PrivateTmp=)."""
TIMEOUT = 900.0
"""Seconds for one command: systemctl waits until the daemon is ready, and gives it up before (TimeoutStartSec=)."""

Run = Callable[[Sequence[str]], None]


@dataclass(frozen=True, slots=True)
class Daemon:
    """A program of Hostlane that systemd runs.

    Attributes:
        name: of its unit, and of its user.
        package: the Python package whose folder ``units`` has the texts of its files.
        files: which those are: units, and what systemd-sysusers and systemd-tmpfiles read (``NAME.sysusers``).
        config: the configuration file that it has by default.
        writes: the configuration's keys of what it writes, and the directories where the unit lets it.
    """

    name: str
    package: str
    files: tuple[str, ...]
    config: str
    writes: Mapping[str, str]


def place(name: str, *, packaged: bool = False) -> str:
    """Where a file is, seen from the root: one that was installed here, or that a package brought."""
    top, (stem, _, kind) = "usr/lib" if packaged else "etc", name.rpartition(".")
    return f"{top}/{kind}.d/{stem}.conf" if kind in ("sysusers", "tmpfiles") else f"{top}/systemd/system/{name}"


def run(argv: Sequence[str]) -> None:
    """Run a command to its end. Raises StartError with the first line that it wrote."""
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
    """One daemon of this machine under systemd.

    Args:
        config: of the configuration file, absolute; executable: the command ``hostlane``; root: where the machine's
            files are, for tests.
    """

    def __init__(
        self, daemon: Daemon, config: str, executable: str, *, root: Path = Path("/"), run: Run = run
    ) -> None:
        self._daemon, self._config, self._executable, self._root, self._run = daemon, config, executable, root, run

    def check(self, paths: Mapping[str, str]) -> None:
        """Raise StartError if it cannot be installed here; `paths`: of what the service must reach, by the keys that
        name them. Changes nothing.
        """
        if os.geteuid() != 0:
            raise StartError(f"--service: found user {os.geteuid()}; allowed: root, as units are installed (sudo)")
        if not (self._root / "run/systemd/system").is_dir() or shutil.which("systemctl") is None:
            raise StartError("--service: systemd does not run here; without it no --service is needed")
        for path in (self._executable, os.path.realpath(sys.executable), self._config, *paths.values()):
            if (hidden := next((each for each in HIDDEN if f"{path}/".startswith(f"{each}/")), None)) is not None:
                found = f"{path} is in {hidden}, which services do not see"
                raise StartError(f"--service: {found}; allowed: elsewhere, such as /opt/hostlane")
        for key, allowed in self._daemon.writes.items():
            if not f"{(found := paths.get(key, allowed))}/".startswith(f"{allowed}/"):
                raise StartError(f"--service: found {key} {found}; allowed: {allowed}, where the service may write")
        if not os.access(self._root / self._executable.lstrip("/"), os.X_OK):
            raise StartError(
                f"--service: no command {self._executable}; install Hostlane with its command, such as by pip"
            )

    def install(self, made: Mapping[str, str] | None = None) -> None:
        """Make the user, the directories, and the units, as far as they are missing, and units that are `made` for this
        machine (their texts, by name). Raises StartError.
        """
        for name in self._daemon.files:
            self._place(name)
        for name, text in (made or {}).items():
            self._write(self._root / place(name), text)
        for kind, argv in (("sysusers", ["systemd-sysusers"]), ("tmpfiles", ["systemd-tmpfiles", "--create"])):
            for name in self._daemon.files:
                if name.endswith(f".{kind}"):
                    self._run([*argv, str(self._found(name))])
        self._run(["systemctl", "daemon-reload"])

    def own(self, directory: str) -> None:
        """Give a directory, with all that is in it, to the daemon's user. Raises StartError."""
        try:
            account = pwd.getpwnam(self._daemon.name)
            for folder, folders, names in os.walk(directory):
                for path in (folder, *(os.path.join(folder, name) for name in (*folders, *names))):
                    os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
        except (KeyError, OSError) as error:
            name = self._daemon.name
            why = f"no user {name}" if isinstance(error, KeyError) else (error.strerror or "failed").lower()
            raise StartError(f"giving {directory} to user {name}: {why}") from None

    def start(self, *units: str) -> None:
        """Start it now, and with the machine, `units` before it. Returns when it is ready. Raises StartError."""
        name = self._daemon.name
        try:
            self._run(["systemctl", "enable", "--now", *units, f"{name}.service"])
        except StartError as error:
            raise StartError(f"{error} (its own words: journalctl --unit {name})") from None

    def _found(self, name: str) -> Path:
        packaged = self._root / place(name, packaged=True)
        return packaged if packaged.exists() else self._root / place(name)

    def _place(self, name: str) -> None:
        if (self._root / place(name, packaged=True)).exists() and self._config == self._daemon.config:
            return
        self._write(self._root / place(name), rendered(self._daemon, name, self._executable, self._config))

    @staticmethod
    def _write(at: Path, text: str) -> None:
        try:
            at.parent.mkdir(parents=True, exist_ok=True)
            at.write_text(text, encoding="utf-8")
            at.chmod(0o644)
        except OSError as error:
            raise StartError(f"cannot write {at}: {(error.strerror or 'failed').lower()}") from None


def rendered(daemon: Daemon, name: str, executable: str, config: str) -> str:
    """The text of one of the daemon's files."""
    text = files(daemon.package).joinpath("units", name).read_text(encoding="utf-8")
    return text.replace("@HOSTLANE@", _word(executable)).replace("@CONFIG@", _word(config))


def _word(text: str) -> str:
    """As one word of a unit's command line (systemd.service(5), "Command lines"; % is for specifiers)."""
    escaped = text.replace("%", "%%").replace("$", "$$")
    plain = all(character.isalnum() or character in "/._-+%$" for character in escaped)
    return escaped if plain else '"' + escaped.replace("\\", "\\\\").replace('"', '\\"') + '"'
