"""Each command that a document shows is typed by a test, word for word, or it is said here where else that is done."""

from __future__ import annotations

import re

from tests.tools.documents import ROOT, blocks, typing

TYPED_BY = (
    "tests/docker/test_documents.py",
    "tests/system/test_documents.py",
    "tests/system/test_documents_control.py",
    "tests/vm/joined.py",
)
CALL = re.compile(r'block\("([^"]+)", "([^"]+)"')
BY_HAND = "by hand"
"""It takes an hour."""
ELSEWHERE = {
    ("README.md", "make demo"): "tests/demo/test_runner.py",
    ("README.md", "host-a$ hostlane control init"): "tests/demo/test_runner.py",
    ("README.md", "host-b$ HOSTLANE_HOST=host-b"): "tests/docker/test_readme.py",
    ("README.md", "host-a$ HOSTLANE_HOST=host-a"): "tests/docker/test_readme.py",
    ("docs/building.md", ".venv/bin/python -m pytest"): "Makefile",
    ("docs/connect.md", "curl"): "tests/system/test_connect.py",
    ("docs/containers.md", "hostlane attach-service"): "tests/system/test_attached_proxy.py",
    ("docs/containers.md", "HOSTLANE_HOST=host-a"): "tests/docker/test_readme.py",
    ("docs/containers.md", "docker update --restart=no"): "tests/docker/test_leases.py",
    ("docs/memory.md", "python -m tests.system.memory"): BY_HAND,
    ("docs/network.md", "cp configs/systemd/hostlane-net.service"): "tests/vm/netunit.py",
    ("docs/security.md", "python -m benchmarks"): BY_HAND,
    ("docs/upgrade.md", "cp configs/systemd/"): "tests/vm/supervised.py",
}
"""By document and how the block begins: what types it."""


def test_every_block_is_typed() -> None:
    calls = {found for path in TYPED_BY for found in CALL.findall((ROOT / path).read_text())}
    documents = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
    shown = [(document, line) for document in documents for line in typing(document)]
    left = [
        (document, line)
        for document, line in shown
        if not any(document == where and line.startswith(start) for where, start in {*calls, *ELSEWHERE})
    ]
    assert left == []
    gone = [
        (where, start)
        for where, start in ELSEWHERE
        if not any(document == where and line.startswith(start) for document, line in shown)
    ]
    assert gone == []


def test_where_else_is_there() -> None:
    assert [place for place in ELSEWHERE.values() if place != BY_HAND and not (ROOT / place).exists()] == []


HEADS = {"control.yaml": 1, "sidecar.yaml": 1, "three-control-etcd.yaml": 4}
"""By file of compose/: how many commands its comments show that stand in no document.
tests/docker/test_documents.py reads them there, and types them."""
SHOWN = re.compile(r"^ *#   ((?:export |[A-Z_]+=\S+ |docker ).*)$", re.MULTILINE)


def test_what_compose_files_show_is_typed() -> None:
    documents = ("README.md", "docs/containers.md", "docs/image.md")
    typed = {line for each in documents for _, text in blocks(each) for line in text.splitlines()}
    left = {}
    for path in sorted((ROOT / "compose").rglob("*.yaml")):
        # A document may have variables before it, or a remark behind it.
        own = [line for line in SHOWN.findall(path.read_text()) if not any(line in each for each in typed)]
        left |= {path.name: len(own)} if own else {}
    assert left == HEADS
