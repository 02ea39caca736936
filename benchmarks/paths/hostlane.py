"""Hostlane: two ``hostlane proxy``, configured as any static mesh of two hosts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.errors import BenchError
from benchmarks.options import OtherBuild
from benchmarks.paths.base import ProxyPair
from benchmarks.testbed import Testbed
from proxy.telemetry.probe import ask

MAX_LINKS = 2
"""What the configuration leaves at its default: links.max_per_peer."""

_A = """\
host: host-a
run_dir: {run_dir}
links: {{listen: "{a}:{port}", {security}}}
{more}peers:
  host-b: {{address: "{b}:{port}", services: [bench, second]}}
upstreams:
  bench: {{listen: "unix:{entry}"}}
  second: {{listen: "unix:{second}"}}
log: {{level: warning}}
"""

_B = """\
host: host-b
run_dir: {run_dir}
links: {{listen: "{b}:{port}", {security}}}
{more}peers:
  host-a: {{address: "{a}:{port}"}}
services:
  bench: {{deliver: "unix:{server}"}}
  second: {{deliver: "unix:{server}"}}
log: {{level: warning}}
"""


class Hostlane(ProxyPair):
    port = 7600
    more = ""
    """Lines of both configurations beside those that every path needs."""

    def __init__(self, name: str, bed: Testbed) -> None:
        super().__init__(name, bed)
        self.second_entry = self.folder / "second.sock"
        self.scraper: subprocess.Popen[bytes] | None = None

    def commands(self) -> tuple[list[str], list[str]]:
        program, lab, security = self._program(), self.bed.lab, self._security()
        for side, template in (("a", _A), ("b", _B)):
            names: dict[str, object] = {
                "entry": self.entry,
                "second": self.second_entry,
                "server": self.bed.server_socket,
                "run_dir": self.folder / side,
                "more": self._more(side),
            }
            names["security"] = security[side]
            text = template.format(a=lab.a.address, b=lab.b.address, port=self.port, **names)
            (self.folder / f"{side}.yaml").write_text(text)
        argv = [*program, "proxy", "--config"]
        return [*argv, str(self.folder / "a.yaml")], [*argv, str(self.folder / "b.yaml")]

    def busy_polled(self) -> list[float]:
        try:
            answers = [ask("status", str(self.folder / side / "admin.sock")) for side in "ab"]
            return [float(json.loads(answer.partition(b"\r\n\r\n")[2])["busy_poll_s"]) for answer in answers]
        except (OSError, ValueError, KeyError):  # another build may not say
            return []

    def _more(self, side: str) -> str:
        """Lines of a side's configuration beside those that every path needs."""
        return self.more

    def _program(self) -> list[str]:
        program = Path(sys.executable).parent / "hostlane"
        if not program.exists():
            raise BenchError(f"{program} is not there (make venv)")
        return [str(program)]

    def _security(self) -> dict[str, str]:
        """For each side, what stands in ``links``."""
        return dict.fromkeys("ab", "security: none")


class HostlaneMtls(Hostlane):
    """The same with the default security."""

    port = 7601
    variant = "mtls"

    def _security(self) -> dict[str, str]:
        return {side: f"security: mtls, tls: {json.dumps(files)}" for side, files in self.certificates().items()}


class HostlaneNoPoll(Hostlane):
    """The same, never busy polling."""

    port = 7603
    variant = "no-poll"
    more = "pump: {busy_poll: off}\n"


class HostlaneScraped(Hostlane):
    """The same with metrics on, and both proxies scraped each second, as Prometheus would, by a process on host A's
    core (benchmarks/scraping.py)."""

    port = 7606
    scrape_port = 7690

    def launch(self) -> None:
        super().launch()
        lab = self.bed.lab
        urls = [f"http://{host.address}:{self.scrape_port}/metrics" for host in (lab.a, lab.b)]
        argv = [sys.executable, "-m", "benchmarks.scraping", *urls]
        self.scraper = self.bed.start(lab.a, argv, log=self._log("scraper"))

    def stop(self) -> None:
        if self.scraper is not None:
            self.scraper.terminate()
            self.scraper.wait()
            self.scraper = None
        super().stop()

    def ended(self) -> bool:
        return super().ended() or (self.scraper is not None and self.scraper.poll() is not None)

    def _more(self, side: str) -> str:
        host = self.bed.lab.a if side == "a" else self.bed.lab.b
        return f"{self.more}telemetry: {{listen: \"{host.address}:{self.scrape_port}\"}}\n"


class HostlaneScrapedMtls(HostlaneScraped, HostlaneMtls):
    """The same with the default security."""

    port = 7607
    scrape_port = 7691


class HostlaneUnretained(Hostlane):
    """The same, keeping nothing for another link (benchmarks/unretained.py)."""

    port = 7602

    def _program(self) -> list[str]:
        return [sys.executable, "-m", "benchmarks.unretained"]


class HostlaneOtherBuild(Hostlane):
    """The same with the executable of another build.

    Args:
        number: of the builds in this run; each has ports of its own.
    """

    def __init__(self, build: OtherBuild, number: int, bed: Testbed) -> None:
        super().__init__(build.name, bed)
        self.build = build
        self.port = 7640 + number

    def _program(self) -> list[str]:
        return _run(self.build)


class HostlaneOtherBuildMtls(HostlaneMtls):
    """The same as `HostlaneOtherBuild` with the default security."""

    def __init__(self, build: OtherBuild, number: int, bed: Testbed) -> None:
        super().__init__(build.mtls_name, bed)
        self.build = build
        self.port = 7670 + number

    def _program(self) -> list[str]:
        return _run(self.build)


def _run(build: OtherBuild) -> list[str]:
    return ["env", *(f"{key}={value}" for key, value in build.environment), str(build.program)]
