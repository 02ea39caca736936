"""Imports go one way. A module that needs something from above it is in the wrong place, or the something is."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

FLOORS: list[set[str]] = [
    # The lowest first. What stands on one floor does not know what stands beside it.
    {"core"},
    {"errors", "config"},
    {"mux"},
    {"pump", "routing"},
    {"links", "inbound"},
    {"pool", "netdev", "cdi"},
    {"outbound", "mesh", "check", "demo", "door"},
    {"telemetry", "explain", "setup"},
    {"agent"},
    {"commands"},
]
"""proxy/: the floors of docs/ARCHITECTURE.md."""
CONTROL_FLOORS: list[set[str]] = [{"base"}, {"api"}, {"store"}, {"ca"}, {"server"}, {"cli"}]
RANKS = {
    package: {part: rank for rank, parts in enumerate(floors) for part in parts}
    for package, floors in (("proxy", FLOORS), ("control", CONTROL_FLOORS))
}
TOGETHER = {"errors", "config"}
"""The lowest floor of proxy/ holds no state and knows nothing of the rest; its two parts may name each other."""

FIRST = ("proxy", "proxy.core.finder.install")
"""What a package imports is imported by all who want anything of it; this one comes first, so that it can say which
modules are imported from then on."""

SHARED = ("control.api", "control.base")
"""What proxy may import of control: what is said between them, and what both stand on."""

SANS_IO = [
    "proxy/config/difference.py",
    "proxy/mux/*.py",
    "proxy/links/handshake.py",
    "proxy/links/handshakelimiter.py",
    "proxy/links/revoked.py",
    "proxy/pool/policy.py",
    "proxy/pool/refusals.py",
    "proxy/pool/history.py",
    "proxy/pool/ttl.py",
    "proxy/pool/recorded.py",
    "proxy/pool/replay.py",
    "proxy/telemetry/page/problems.py",
    "proxy/pump/proxyheader.py",
    "proxy/mesh/schedule.py",
    "proxy/mesh/map.py",
    "proxy/mesh/effective.py",
    "proxy/routing/table.py",
    "proxy/setup/configuration.py",
    "proxy/routing/allow.py",
    "proxy/routing/balance.py",
    "proxy/routing/ejection.py",
    "proxy/routing/explain.py",
    "proxy/cdi/messages.py",
    "proxy/cdi/spec.py",
    "proxy/door/labels.py",
    "proxy/door/desired.py",
    "proxy/door/messages.py",
    "proxy/netdev/observe/records.py",
    "proxy/netdev/observe/networkstate.py",
    "proxy/netdev/observe/mark.py",
    "proxy/netdev/plan/*.py",
    "proxy/netdev/leases/leases.py",
    "proxy/check/report.py",
    "proxy/check/rules/*.py",
    "proxy/explain/account.py",
    "control/base/backoff.py",
    "control/base/tokenbucket.py",
    "control/base/ratelimit.py",
    "control/base/page/since.py",
    "control/server/meshproblems.py",
    "control/store/leases.py",
    "control/store/etcdwire.py",
]
"""Time, randomness and bytes are arguments here, so that tests can go through them step by step."""
IMPURE = {"asyncio", "datetime", "os", "random", "secrets", "select", "selectors", "socket", "ssl", "time", "trio"}

FILES = sorted(path for package in ("proxy", "control") for path in (ROOT / package).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}
"""A package counts as a module, too: its __init__."""


def imports(source: str) -> Iterator[str]:
    """What a source names in import statements, wherever they stand, TYPE_CHECKING or not. `from a import b` gives a.b:
    whether that is a module or a name in one, its first words say where it stands.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported(source: str) -> set[str]:
    """The modules of ours that a source imports."""
    found = {target if target in MODULES else target.rpartition(".")[0] for target in imports(source)}
    return found & MODULES.keys()


def part(module: str) -> str | None:
    """`mux` of proxy.mux.frames; None for the package itself, which holds nothing to import."""
    words = module.split(".")
    return words[1] if len(words) > 1 else None


def complaints(module: str, source: str) -> Iterator[str]:
    package = module.split(".")[0]
    for target in imports(source):
        theirs = target.split(".")[0]
        if theirs not in RANKS or (module, target) == FIRST:
            continue
        if package == "control" and theirs == "proxy":
            yield f"{module} imports {target}: control never imports proxy"
        elif package == "proxy" and theirs == "control":
            if not f"{target}.".startswith(tuple(f"{shared}." for shared in SHARED)):
                yield f"{module} imports {target}: proxy may import {' and '.join(SHARED)} only"
        elif not goes_down(RANKS[package], part(module), part(target)):
            yield f"{module} imports {target}, which does not stand on a floor below"


def goes_down(rank: dict[str, int], mine: str | None, theirs: str | None) -> bool:
    if mine is None or theirs is None:
        return False
    return mine == theirs or {mine, theirs} <= TOGETHER or rank[theirs] < rank[mine]


@pytest.mark.parametrize("path", FILES, ids=lambda path: module_name(path))
def test_direction(path: Path) -> None:
    assert sorted(set(complaints(module_name(path), path.read_text()))) == []


def circles(graph: Mapping[str, Iterable[str]]) -> list[set[str]]:
    """The sets of modules that import each other, directly or by way of others (Tarjan's algorithm)."""
    found: list[set[str]] = []
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []

    def visit(node: str) -> None:
        number[node] = low[node] = len(number)
        stack.append(node)
        for other in graph[node]:
            if other not in number:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == number[node]:
            at = stack.index(node)
            if len(stack) > at + 1 or node in graph[node]:
                found.append(set(stack[at:]))
            del stack[at:]

    for node in graph:
        if node not in number:
            visit(node)
    return found


def test_no_circles() -> None:
    assert circles({module: imported(path.read_text()) for module, path in MODULES.items()}) == []


def test_circles_are_found() -> None:
    graph = {"a": ["b"], "b": ["c", "d"], "c": ["a"], "d": ["e"], "e": ["e"], "f": ["a"]}
    assert circles(graph) == [{"e"}, {"a", "b", "c"}]


@pytest.mark.parametrize("path", [path for path in FILES if path.name == "__init__.py"], ids=module_name)
def test_packages_import_nothing(path: Path) -> None:
    package = module_name(path)
    assert [target for target in imports(path.read_text()) if (package, target) != FIRST] == []


def test_every_part_has_a_floor() -> None:
    for package, rank in RANKS.items():
        parts = {part(module) for module in MODULES if module.startswith(f"{package}.")}
        assert parts == rank.keys()


@pytest.mark.parametrize(("package", "most"), [("proxy", 3), ("control", 2)])
def test_the_root_of_a_package_is_no_place_for_modules(package: str, most: int) -> None:
    assert len(list((ROOT / package).glob("*.py"))) <= most


def test_every_pattern_matches() -> None:
    """A file that moved away would make the rule about it green and empty."""
    assert [pattern for pattern in SANS_IO if not list(ROOT.glob(pattern))] == []


@pytest.mark.parametrize("path", sorted(path for glob in SANS_IO for path in ROOT.glob(glob)), ids=module_name)
def test_sans_io(path: Path) -> None:
    impure = {target for target in imports(path.read_text()) if target.split(".")[0] in IMPURE}
    assert impure == set()
    asynchronous = (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)
    assert not [node.lineno for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, asynchronous)]


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("proxy.mux.session", "from proxy.pump import loop", True),
        ("proxy.mux.session", "def late():\n    import proxy.pump.loop", True),
        ("proxy.mux.session", "if TYPE_CHECKING:\n    from proxy.pump.loop import Pump", True),
        ("proxy.mux.session", "from proxy.mux.frames import Frame\nimport proxy.errors", False),
        ("proxy.pump.lane", "from proxy.routing.table import Table", True),
        ("proxy.outbound.upstreams", "from proxy.inbound import deliver", False),
        ("proxy.outbound.upstreams", "from proxy.mesh import map", True),
        ("proxy.agent.agent", "from proxy.inbound import deliver", False),
        ("proxy.config.schema", "from proxy.errors import StartError", False),
        ("proxy.telemetry.admin", "from control.api import messages", False),
        ("proxy.telemetry.admin", "from control.api.messages import Status", False),
        ("proxy.telemetry.admin", "from control.cli.main import main", True),
        ("proxy.telemetry.admin", "import control.apis", True),
        ("proxy.telemetry.admin", "from proxy import commands", True),
        ("control.cli.main", "from proxy.errors import HostlaneError", True),
        ("control.cli.main", "import proxy", True),
        ("control.store.base", "from control.server import feed", True),
        ("control.ca.root", "from control.api.identity import BACKDATED", False),
        ("proxy.config.schema", "from control.base.reading.yamlmap import read", False),
    ],
)
def test_the_rule_itself(module: str, source: str, wrong: bool) -> None:
    assert bool(list(complaints(module, source))) is wrong
