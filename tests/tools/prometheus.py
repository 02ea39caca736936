"""Debian's Prometheus, a process of its own on loopback, started and ended by the tests."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import httpx
import trio
import yaml

from tests.tools.sockets import free_ports

PATIENCE = 30.0


@functools.cache
def missing() -> str | None:
    """Why there can be none here, or None."""
    there = shutil.which("prometheus") and shutil.which("promtool")
    return None if there else "prometheus is not installed (Debian: apt-get install prometheus)"


class Prometheus:
    """One that scrapes `targets` every second; ``with`` starts it, and ends it. What it said is in ``log``."""

    def __init__(self, place: Path, targets: Sequence[str], rules: Path) -> None:
        [port] = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self.log = place / "prometheus.log"
        file = place / "prometheus.yml"
        file.write_text(
            yaml.safe_dump(
                {
                    "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
                    "rule_files": [str(rules)],
                    "scrape_configs": [{"job_name": "hostlane", "static_configs": [{"targets": list(targets)}]}],
                }
            )
        )
        self._argv = [
            "prometheus",
            f"--config.file={file}",
            f"--storage.tsdb.path={place / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        environment = {**os.environ, "GOMAXPROCS": "1"}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(PATIENCE)

    async def ask(self, client: httpx.AsyncClient, path: str, **query: str) -> Any:
        """What its interface answers; it is waited for until it does."""
        with trio.fail_after(PATIENCE):
            while True:
                try:
                    answer = await client.get(f"{self.url}/api/v1/{path}", params=query)
                    if answer.status_code != 503:
                        return answer.json()
                except httpx.TransportError:
                    assert self._process is not None
                    assert self._process.poll() is None, self.log.read_text()
                await trio.sleep(0.1)
