"""Imports go one way. A module that needs something from above it is in the wrong place, or the something is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

LAYERS: list[set[str]] = [
    # The lowest: the modules in proxy/ itself that hold no state and know nothing of the rest.
    {
        "errors", "config", "configcheck", "configinterfaces", "difference", "interfacecheck", "netvalues",
    },
    {"mux"},
    {"pump"},
    {"links"},
    {"pool"},
    {"routing"},
    {"outbound", "inbound", "telemetry", "joining"},
    # Interfaces get addresses of the control plane, which is asked with this host's certificate.
    {"netdev"},
    {"meshview", "reload"},
    {"view"},
    {"drain", "membership"},
    {"handover"},
    {"agent"},
    {"check"},
    {"explain"},
    {"demo"},
    {"commands", "poolcommands"},
]
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}

SHARED = (
    "control.messages",
    "control.admin",
    "control.ca",
    "control.tokens",
    "control.mesh",
    "control.client",
    "control.errors",
    "control.identity",
    "control.reading",
    "control.system",
)
"""What proxy may import of control: what an admin socket says, and the client that asks one; what hosts and the control
plane say to each other, and the client for that; the root of the errors; how configuration files are read; logs and
listening Unix sockets."""

SANS_IO = [
    "proxy/difference.py",
    "proxy/mux/*.py",
    "proxy/links/handshake.py",
    "proxy/links/slots.py",
    "proxy/links/revoked.py",
    "proxy/pool/policy.py",
    "proxy/pool/history.py",
    "proxy/pool/ttl.py",
    "proxy/pool/recorded.py",
    "proxy/pool/replay.py",
    "proxy/pool/backoff.py",
    "proxy/pump/bucket.py",
    "proxy/pump/proxyheader.py",
    "proxy/joining/schedule.py",
    "proxy/routing/table.py",
    "proxy/routing/allow.py",
    "proxy/routing/balance.py",
    "proxy/routing/ejection.py",
    "proxy/routing/explain.py",
    "proxy/routing/map.py",
    "proxy/routing/effective.py",
    *(
        f"proxy/netdev/{name}.py"
        for name in (
            "records", "world", "mark", "steps", "draft", "addressing", "links", "vfs", "plan", "attach", "budget",
            "status", "leases",
        )
    ),
    "proxy/check/report.py",
    "proxy/check/rules/*.py",
    "proxy/explain/account.py",
    "control/store/leases.py",
    "control/store/etcdwire.py",
]
"""Time, randomness and bytes are arguments here, so that tests can go through them step by step."""
IMPURE = {"asyncio", "datetime", "os", "random", "secrets", "select", "selectors", "socket", "ssl", "time", "trio"}

FILES = sorted(path for package in ("proxy", "control") for path in (ROOT / package).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str) -> Iterator[str]:
    """The modules that a source names in import statements, wherever they stand; `from a import b` gives a and a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part(module: str) -> str | None:
    """The layer's name in `proxy.<part>...`; None for proxy itself, which anything may import."""
    words = module.split(".")
    return words[1] if len(words) > 1 else None


def complaints(module: str, source: str) -> Iterator[str]:
    for target in imports(source):
        package = target.split(".")[0]
        if module.startswith("control") and package == "proxy":
            yield f"{module} imports {target}: control never imports proxy"
        if module.startswith("proxy") and package == "control" and not is_shared(target, source):
            yield f"{module} imports {target}: proxy may import {' and '.join(SHARED)} only"
        if module.startswith("proxy.") and package == "proxy":
            yield from upward(module, target)


def is_shared(target: str, source: str) -> bool:
    """`from control import messages` also gives plain `control`, which is fine beside it."""
    for shared in SHARED:
        if f"{target}.".startswith(f"{shared}.") or (target == "control" and shared in imports(source)):
            return True
    return False


def upward(module: str, target: str) -> Iterator[str]:
    mine, theirs = part(module), part(target)
    if mine is None or theirs is None or theirs not in RANK or mine == theirs:
        return
    same_layer_allowed = RANK[mine] == 0
    if RANK[theirs] > RANK[mine] or (RANK[theirs] == RANK[mine] and not same_layer_allowed):
        yield f"{module} imports {target}: {mine} stands below or beside {theirs}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: module_name(path))
def test_direction(path: Path) -> None:
    assert sorted(set(complaints(module_name(path), path.read_text()))) == []


def test_every_part_has_a_layer() -> None:
    parts = {part(module_name(path)) for path in FILES if path.is_relative_to(ROOT / "proxy")} - {None}
    assert parts - RANK.keys() == set(), "give each a place in LAYERS"


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
        ("proxy.mux.session", "from proxy.mux.frames import Frame\nimport proxy.errors", False),
        ("proxy.outbound.upstreams", "from proxy.inbound import deliver", True),
        ("proxy.agent", "from proxy.inbound import deliver", False),
        ("proxy.telemetry.admin", "from control import messages", False),
        ("proxy.telemetry.admin", "from control.messages import Status", False),
        ("proxy.explain.commands", "from control import admin", False),
        ("proxy.telemetry.admin", "from control.cli import main", True),
        ("proxy.telemetry.admin", "import control.messages_old", True),
        ("control.cli", "from proxy.errors import HostlaneError", True),
        ("control.cli", "import proxy", True),
        ("proxy.config", "from control.reading.yamlmap import read", False),
    ],
)
def test_the_rule_itself(module: str, source: str, wrong: bool) -> None:
    assert bool(list(complaints(module, source))) is wrong
