"""A mesh with a control plane: one control server and five hosts that have joined it by token, all with mutual TLS."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from proxy.demo.lab import Lab, LabHost
from proxy.demo.mesh import HOSTLANE
from tests.system.world import add_address, ask, hostlane
from tests.tools.process import Process, Proxy
from tests.tools.servers import Echo
from tests.tools.sockets import connect, eventually

LETTERS = "abcde"
CONTROL_PORT = 7601
LEASE = 5


class Control(Process):
    """``hostlane control``."""

    def __init__(self, file: Path, *, host: LabHost) -> None:
        super().__init__([*HOSTLANE, "control", "--config", str(file)], host=host)

    def ready(self) -> None:
        """Wait until it answers."""
        self.wait_for("control server ready")

    def restart(self) -> None:
        """Start it (again), and wait until it answers."""
        self.start()
        self.ready()


class Fleet:
    """``with`` gives the control server and all five proxies running and ready; host-a and the control server are on
    host a of the lab, all others on host b. Every host calls every service (``upstreams: all``).

    Attributes:
        control: the control server; proxies: by letter; echoes: a server for each host, which echoes for all services
            that the host offers.
        folder: a short path, gone after the block.
    """

    def __init__(self, lab: Lab, control: str = f"{{a}}:{CONTROL_PORT}") -> None:
        self.lab = lab
        self.control_address = control.format(a=lab.a.address)
        self.folder = Path(tempfile.mkdtemp(prefix="hl-"))
        self.offers: dict[str, list[str]] = {letter: [] for letter in LETTERS}
        numbers = dict(zip("cde", ("3", "4", "5"), strict=True))
        more = {letter: f"10.77.0.{number}" for letter, number in numbers.items()}
        self.addresses = {"a": lab.a.address, "b": lab.b.address, **more}
        self.control_file = self.folder / "control.yaml"
        self.control = Control(self.control_file, host=lab.a)
        self.proxies: dict[str, Proxy] = {}
        self.echoes: dict[str, Echo] = {}
        self._running = ExitStack()

    def begin(self, **offers: Sequence[str]) -> None:
        """Everything runs, everybody knows everybody, and each host offers what stands here for its letter."""
        if not self.control.running:
            self.control.restart()
        for letter, proxy in self.proxies.items():
            if not proxy.running:
                proxy.restart()
            self.offer(letter, *offers.get(letter, ()))
        self.wait_until_all_know_all()
        for service in {name for names in offers.values() for name in names}:
            letters = "".join(letter for letter in LETTERS if service in offers.get(letter, ()))
            eventually(lambda each=service, by=letters: self.offered_by(each) == by, f"{service} is known")  # type: ignore[misc]

    def offer(self, letter: str, *services: str) -> None:
        """From now on the host offers these services and no other."""
        self.offers[letter] = list(services)
        proxy = self.proxies[letter]
        proxy.file.write_text(json.dumps(self._config(letter)))
        since = len(proxy.log)
        os.kill(proxy.pid, signal.SIGHUP)
        proxy.wait_for("configuration applied", since)

    def socket(self, letter: str, service: str) -> Path:
        """Where containers of a host call a service."""
        return self.folder / letter / "services" / f"{service}.sock"

    def call(self, service: str, letter: str = "a") -> socket.socket:
        """A new connection to a service, made on that host. The caller closes it."""
        return connect(self.socket(letter, service))

    def ask(self, letter: str, what: str) -> Any:
        """What the admin socket of a host says."""
        return ask(self.folder / letter / "run" / "admin.sock", what)

    def offered_by(self, service: str, letter: str = "a") -> str:
        """Letters of the hosts that offer a service, as a host knows it."""
        hosts = self.ask(letter, "hosts")
        return "".join(host["name"][-1] for host in hosts if service in host["services"])

    def status(self, letter: str = "a") -> dict[str, Any]:
        """How a host follows the control plane."""
        found: dict[str, Any] = self.ask(letter, "status")["control"]
        return found

    def saved(self, letter: str) -> bool:
        """Whether the map that a host has on its disk says what everybody offers by now."""
        stored = json.loads((self.folder / letter / "state" / "map.json").read_text())
        offers = {host["name"][-1]: [offer["name"] for offer in host["services"]] for host in stored["hosts"]}
        return bool(offers == self.offers)

    def wait_until_all_know_all(self) -> None:
        """Wait until each host's map has all hosts, confirmed, and each is registered."""

        def known(letter: str) -> bool:
            status = self.status(letter)
            all_there = status["hosts"] == len(LETTERS) and not status["unconfirmed"]
            return bool(status["server"] and status["registered"] and all_there)

        eventually(lambda: all(known(letter) for letter in self.proxies if self.proxies[letter].running), "one map")

    def lose_the_store(self) -> None:
        """Take the control server's store away; its CA stays."""
        for path in self.folder.glob("control/store.db*"):
            path.unlink()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, self.folder)
            self._write_control()
            found = hostlane("control", "init", "--config", str(self.control_file), host=self.lab.a)
            assert found.returncode == 0, found.stderr
            stack.enter_context(self.control)
            self.control.ready()
            for letter in LETTERS[2:]:
                add_address(stack, self.lab.b, self.addresses[letter])
            for letter in LETTERS:
                self._join(letter, stack)
            self.wait_until_all_know_all()
            self._running = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._running.__exit__(*error)

    def _write_control(self) -> None:
        config = {
            "name": "control-1",
            "listen": self.control_address,
            "run_dir": str(self.folder / "control-run"),
            "state_dir": str(self.folder / "control"),
            "store": {"sqlite": {"path": str(self.folder / "control" / "store.db")}},
            "lease": f"{LEASE}s",
            "log": {"format": "json"},
        }
        self.control_file.write_text(json.dumps(config))

    def _join(self, letter: str, stack: ExitStack) -> None:
        folder = self.folder / letter
        folder.mkdir()
        made = hostlane(
            "token", "create", "--host", f"host-{letter}", "--config", str(self.control_file), host=self.lab.a
        )
        assert made.returncode == 0, made.stderr
        token = folder / "token"
        token.touch(0o600)
        token.write_text(made.stdout)
        self.echoes[letter] = stack.enter_context(Echo(self._deliver(letter)))
        host = self.lab.a if letter == "a" else self.lab.b
        self.proxies[letter] = stack.enter_context(Proxy(self._config(letter), folder, host=host))

    def _deliver(self, letter: str) -> str:
        return f"unix:{self.folder}/{letter}/service.sock"

    def _config(self, letter: str) -> dict[str, Any]:
        folder = self.folder / letter
        return {
            "host": f"host-{letter}",
            "run_dir": f"{folder}/run",
            "socket_dir": f"{folder}/services",
            "links": {"listen": f"{self.addresses[letter]}:7600"},
            "control": {
                "servers": [self.control_address],
                "token_file": f"{folder}/token",
                "state_dir": f"{folder}/state",
            },
            "upstreams": "all",
            "services": {name: {"deliver": self._deliver(letter)} for name in self.offers[letter]},
            "log": {"level": "debug", "format": "json"},
        }
