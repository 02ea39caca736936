from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks import measures, options, paths
from benchmarks.options import OtherBuild
from benchmarks.paths.base import ProxyPair
from proxy.config import schema


def bed(folder: Path) -> Any:
    host_a, host_b = (SimpleNamespace(address=f"10.77.0.{number}") for number in (1, 2))
    return SimpleNamespace(folder=folder, lab=SimpleNamespace(a=host_a, b=host_b), server_socket=folder / "server.sock")


def test_another_build_is_hostlane_with_its_own_program_environment_and_port(tmp_path: Path) -> None:
    program = Path("/old/.venv/bin/hostlane")
    builds = [OtherBuild("old", program), OtherBuild("off", program, (("HOSTLANE_PURE", "1"),))]
    names = ("hostlane", "old", "off", "old-mtls", "off-mtls")
    made = [paths.make(name, bed(tmp_path), builds) for name in names]
    assert len({path.port for path in made}) == 5
    for path, environment in zip(made[1:], ([], ["HOSTLANE_PURE=1"]) * 2, strict=True):
        assert isinstance(path, ProxyPair)
        path.folder.mkdir()
        for side, argv in zip("ab", path.commands(), strict=True):
            file = path.folder / f"{side}.yaml"
            assert argv == ["env", *environment, str(program), "proxy", "--config", str(file)]
            assert str(path.port) in file.read_text()
            assert ("security: mtls" in file.read_text()) is path.name.endswith("-mtls")


def test_ports_are_each_path_s_own(tmp_path: Path) -> None:
    made = [paths.make(name, bed(tmp_path)) for name in options.PATHS + options.EXTRA_PATHS]
    assert len({path.port for path in made}) == len(made)


def test_without_busy_polling_is_a_line_of_the_configuration(tmp_path: Path) -> None:
    for name, off in (("hostlane", False), ("hostlane-no-poll", True)):
        path = paths.make(name, bed(tmp_path))
        assert isinstance(path, ProxyPair)
        path.folder.mkdir()
        path.commands()
        for side in "ab":
            file = path.folder / f"{side}.yaml"
            assert (schema.load(file).pump.looks_for == 0.0) is off


def test_scraped_is_with_metrics_at_each_host(tmp_path: Path) -> None:
    ports = set()
    for name in ("hostlane-scraped", "hostlane-scraped-mtls"):
        path = paths.make(name, bed(tmp_path))
        assert isinstance(path, ProxyPair)
        path.folder.mkdir()
        path.commands()
        for side, address in (("a", "10.77.0.1"), ("b", "10.77.0.2")):
            listen = schema.load(path.folder / f"{side}.yaml").telemetry.listen
            assert listen is not None
            assert listen.host == address
            ports.add(listen.port)
        assert ("security: mtls" in (path.folder / "a.yaml").read_text()) is name.endswith("-mtls")
    assert len(ports) == 2, "both may run at once"


def test_every_measure_has_a_cell_in_the_full_and_in_the_quick_run() -> None:
    for asked in (options.parse([]), options.parse(["--quick"])):
        assert {cell.measure for cell in measures.plan(asked)} == set(options.MEASURES)
