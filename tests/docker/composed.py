"""Two hosts with engines, Compose and the image, on which the files of compose/ are brought up as they stand."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from proxy.demo.lab import CABLE, Lab
from tests.docker.engines import EngineHost
from tests.docker.images import built
from tests.docker.programs import ROOT, engine
from tests.tools.sockets import PATIENCE, eventually

RANGES = ("10.77.0.128/26", "10.77.0.192/26")
COMPOSE = "usr/libexec/docker/cli-plugins/docker-compose"


class ComposeHost:
    """One host. `folder` holds a copy of compose/."""

    def __init__(self, host: EngineHost, folder: Path, addresses: str) -> None:
        self.engine, self.folder = host, folder
        shutil.copytree(ROOT / "compose", folder / "compose")
        host.docker("load", "--quiet", f"--input={built()}")
        host.docker(
            "network", "create", "--driver=macvlan", f"--opt=parent={CABLE}", "--subnet=10.77.0.0/24",
            f"--ip-range={addresses}", "lane",
        )  # fmt: skip

    def compose(self, file: str, *words: str, fails: bool = False, **variables: str) -> str:
        """``docker compose -f compose/FILE``, with these variables; what it prints. AssertionError if it fails."""
        argv = ["docker-compose", "-f", f"compose/{file}", *words]
        environment = {**self.engine.environment, "DOCKER_HOST": f"unix://{self.engine.sockets}/docker.sock"}
        environment["PATH"] = f"{(engine() / COMPOSE).parent}{os.pathsep}{environment['PATH']}"
        done = subprocess.run(argv, cwd=self.folder, env={**environment, **variables}, capture_output=True, text=True,
                              timeout=300, check=False)  # fmt: skip
        assert (done.returncode == 0) != fails, f"{' '.join(argv)}: {done.stdout}{done.stderr}{self.logs()}"
        return f"{done.stdout}{done.stderr}" if fails else done.stdout

    def healthy(self, name: str) -> None:
        """Wait until a container says so."""
        eventually(lambda: self.health(name) == "healthy", f"{name} healthy", 3 * PATIENCE)

    def health(self, name: str) -> str:
        return self.engine.docker("inspect", "--format={{.State.Health.Status}}", name)

    def state(self, name: str) -> str:
        return self.engine.docker("inspect", "--format={{.State.Status}}", name)

    def logs(self) -> str:
        """The last words of all containers, for a test that fails."""
        names = self.engine.docker("ps", "--all", "--format={{.Names}}").split()
        return "".join(f"\n{name}: {self.engine.log(name)[-5:]}" for name in names)


@contextmanager
def compose_hosts() -> Iterator[tuple[ComposeHost, ComposeHost]]:
    """Two hosts on one segment; nothing runs there yet."""
    with ExitStack() as stack:
        lab = stack.enter_context(Lab())
        folder = Path(tempfile.mkdtemp(prefix="hl-compose-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        made = []
        for host, addresses in zip(lab.hosts, RANGES, strict=True):
            on = EngineHost(host, folder / host.name[-1], programs=engine())
            stack.callback(on.close)
            made.append(ComposeHost(on, on.files, addresses))
        yield made[0], made[1]
