"""What docstrings, comments and documents name exists: dotted names of ours, and files. A name that is gone sends the
reader on a search that finds nothing. (CHANGELOG.md tells of the past.)
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("proxy", "control")
SOURCES = sorted(path for folder in (*PACKAGES, "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
OURS = ("*.md", "docs/*.md", "proxy/**/*.md", "control/**/*.md", "benchmarks/README.md", "compose/*.md")
DOCS = sorted(path for pattern in OURS for path in ROOT.glob(pattern) if path.name != "CHANGELOG.md")
CONFIGS = ("reference.yaml", "control-reference.yaml")

DOTTED = re.compile(r"(?<![\w./@-])([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)(?![\w/-])(?!\.\w)")
FILE = re.compile(r"(?<![\w.-])((?:[\w.-]+/)*\w+\.py)\b")
PLACEHOLDERS = {"MESH", "KEY"}
"""Words in a dotted name that stand for others: control.MESH.internal."""
ENDINGS = {"py", "md", "png", "js", "sock", "yaml", "json", "pem", "key", "db", "log", "socket", "service", "c"}
"""Last words by which a dotted name is a file's."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def members(node: ast.ClassDef) -> set[str]:
    """Methods, class attributes, and what methods assign to self."""
    found = set(defined(node.body))
    for each in ast.walk(node):
        if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store):
            found.add(each.attr)
    return found


def defined(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (each.id for target in node.targets for each in ast.walk(target) if isinstance(each, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def known() -> dict[str, set[str]]:
    """What may stand behind a dot, by the name in front of it: modules, classes, and packages, each by its last words
    (`proxy.mux.session`, `mux.session`, `mux.session.Session`).
    """
    found: dict[str, set[str]] = {}

    def add(name: str, inside: set[str]) -> None:
        words = name.split(".")
        for start in range(len(words)):
            found.setdefault(".".join(words[start:]), set()).update(inside)

    for path in SOURCES:
        module = module_name(path)
        if "." in module:
            parent, _, leaf = module.rpartition(".")
            add(parent, {leaf})
        add(module, set(defined(tree(path).body)))
        for node in tree(path).body:
            if isinstance(node, ast.ClassDef):
                add(f"{module}.{node.name}", members(node))
                # `pump.lanes` is said of a Pump where there is one at hand.
                found.setdefault(f"{node.name.lower()}.", set()).update(members(node))
    return found


@cache
def parts() -> set[str]:
    """What a dotted name must begin with to be one of ours: packages, folders in them, modules, classes."""
    folders = {path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    modules = {path.stem for folder in folders for path in folder.glob("*.py")}
    classes = {node.name for path in SOURCES for node in tree(path).body if isinstance(node, ast.ClassDef)}
    return {folder.name for folder in folders} | modules | classes


@cache
def keys() -> set[str]:
    """The configuration's keys, as they are written with dots."""
    found: set[str] = set()

    def walk(value: object, path: tuple[str, ...]) -> None:
        if isinstance(value, dict):
            for key, inside in value.items():
                found.add(".".join((*path, str(key))))
                walk(inside, (*path, str(key)))

    for name in CONFIGS:
        walk(yaml.safe_load((ROOT / "configs" / name).read_text()), ())
    return found


def exists(name: str) -> bool:
    words = name.split(".")
    for split in range(1, len(words)):
        behind = known().get(".".join(words[:split]), set()) | known().get(f"{words[split - 1]}.", set())
        if words[split] not in behind:
            return False
    return True


def unknown_names(text: str) -> Iterator[str]:
    """The dotted names in a text that begin with one of our packages, modules or classes and lead nowhere."""
    for name in DOTTED.findall(text):
        first, last = name.split(".")[0], name.rpartition(".")[2]
        if PLACEHOLDERS & set(name.split(".")):
            continue
        if first in parts() and last not in ENDINGS and name not in keys() and not exists(name):
            yield name


def unknown_files(text: str) -> Iterator[str]:
    """The Python files named in a text that are none of ours, whatever of their path is said."""
    for name in FILE.findall(text):
        if not any(str(path).endswith(f"/{name.removeprefix('../')}") for path in SOURCES):
            yield name


def said(path: Path) -> str:
    """Docstrings and comments of a source file."""
    found = [
        node.value.value
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    with tokenize.open(path) as file:
        tokens = tokenize.generate_tokens(io.StringIO(file.read()).readline)
        found += [token.string for token in tokens if token.type == tokenize.COMMENT]
    return "\n".join(found)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_docstrings_and_comments(path: Path) -> None:
    text = said(path)
    assert [*unknown_names(text), *unknown_files(text)] == []


@pytest.mark.parametrize("path", DOCS, ids=name_of)
def test_documents(path: Path) -> None:
    text = path.read_text()
    assert [*unknown_names(text), *unknown_files(text)] == []


@pytest.mark.parametrize("path", [path for path in SOURCES if path.name == "__init__.py"], ids=name_of)
def test_a_package_names_what_it_has(path: Path) -> None:
    """Its __init__ is its map: a word ``in double quotes`` there is a file or folder of it, or of ours elsewhere."""
    words = re.findall(r"``([a-z_]+)``", ast.get_docstring(tree(path)) or "")
    here = {each.stem for each in path.parent.iterdir()}
    assert [word for word in words if word not in here | set(PACKAGES)] == []


def test_what_is_gone_is_found() -> None:
    gone = ["proxy.nowhere", "proxy.mux.frames.NOTHING", "mux.frames.NOTHING", "control.api.gone", "Session.gone"]
    there = ["proxy.mux.frames.FrameKind", "mux.frames", "links.listen", "Session.open", "control.sock", "struct.pack"]
    assert list(unknown_names(" ".join(gone + there))) == gone
    assert list(unknown_files("proxy/mux/frames.py frames.py mux/gone.py")) == ["mux/gone.py"]
