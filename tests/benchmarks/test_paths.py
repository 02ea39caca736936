from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks import measures, options, paths
from benchmarks.options import OtherBuild
from benchmarks.paths.base import ProxyPair


def bed(folder: Path) -> Any:
    host_a, host_b = (SimpleNamespace(address=f"10.77.0.{number}") for number in (1, 2))
    return SimpleNamespace(folder=folder, lab=SimpleNamespace(a=host_a, b=host_b), server_socket=folder / "server.sock")


def test_another_build_is_hostlane_with_its_own_program_environment_and_port(tmp_path: Path) -> None:
    program = Path("/old/.venv/bin/hostlane")
    builds = [OtherBuild("old", program), OtherBuild("off", program, (("HOSTLANE_PURE", "1"),))]
    made = [paths.make(name, bed(tmp_path), builds) for name in ("hostlane", "old", "off")]
    assert len({path.port for path in made}) == 3
    for path, environment in zip(made[1:], ([], ["HOSTLANE_PURE=1"]), strict=True):
        assert isinstance(path, ProxyPair)
        path.folder.mkdir()
        for side, argv in zip("ab", path.commands(), strict=True):
            file = path.folder / f"{side}.yaml"
            assert argv == ["env", *environment, str(program), "proxy", "--config", str(file)]
            assert str(path.port) in file.read_text()


def test_every_measure_has_a_cell_in_the_full_and_in_the_quick_run() -> None:
    for asked in (options.parse([]), options.parse(["--quick"])):
        assert {cell.measure for cell in measures.plan(asked)} == set(options.MEASURES)
