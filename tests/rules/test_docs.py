"""What documents point at exists: files and headings that they link to, commands they name, tests they cite."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from control.cli.main import hostlane

ROOT = Path(__file__).resolve().parents[2]
OURS = ("*.md", "docs/*.md", "proxy/**/*.md", "control/**/*.md", "benchmarks/*.md", "compose/*.md", "tests/**/*.md")
DOCS = sorted({path for pattern in OURS for path in ROOT.glob(pattern)})
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")
COMMAND = re.compile(r"(?:`|^(?:\$ |# )?(?:sudo )?)hostlane ([a-z-][^`|&;<>()#\n]*)", re.MULTILINE)
MAKE = re.compile(r"(?:`|^(?:\$ |# )?(?:sudo )?)make ([a-z]+)", re.MULTILINE)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(text: str) -> set[str]:
    """The fragments by which GitHub knows the headings of a document."""
    found = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def dead(path: Path, text: str) -> Iterator[str]:
    """The links of a document that lead nowhere in this repository. What is elsewhere is not asked for."""
    for link in LINK.findall(text):
        if "://" in link or link.startswith("mailto:"):
            continue
        place, _, fragment = link.partition("#")
        target = (path.parent / place).resolve() if place else path
        if not target.exists() or (fragment and target.is_file() and fragment not in anchors(target.read_text())):
            yield link


def unknown(text: str) -> Iterator[str]:
    """The commands in code that ``hostlane`` does not have, or not with that option."""
    for line in COMMAND.findall(text):
        command: click.Command = hostlane
        for word in line.split():
            if word.startswith("--"):
                known = {option for parameter in command.params for option in parameter.opts}
                if word.partition("=")[0] not in known | {"--help", "--version"}:
                    yield line
            elif isinstance(command, click.Group) and re.fullmatch("[a-z-]+", word):
                found = command.get_command(click.Context(command), word)
                if found is None:
                    yield line
                    break
                command = found


@pytest.mark.parametrize("path", DOCS, ids=name)
def test_links_lead_somewhere(path: Path) -> None:
    assert list(dead(path, path.read_text())) == []


@pytest.mark.parametrize("path", DOCS, ids=name)
def test_commands_exist(path: Path) -> None:
    text = path.read_text()
    assert list(unknown(text)) == []
    assert set(MAKE.findall(text)) <= TARGETS


def test_what_is_dead_is_found(tmp_path: Path) -> None:
    here = tmp_path / "here.md"
    here.write_text("# A heading, `coded`\n")
    text = "[a](here.md) [b](gone.md) [c](#a-heading-coded) [d](here.md#gone) [e](https://example.org/gone)"
    assert list(dead(here, text)) == ["gone.md", "here.md#gone"]
    commands = "`hostlane net plan FILE` and `hostlane ca gone`\n$ hostlane gone\nhostlane links --json | jq --gone"
    assert list(unknown(f"{commands}\n`hostlane links --gone`")) == ["ca gone", "gone", "links --gone"]


def test_tests_that_documents_cite_exist() -> None:
    cited = {
        (name(path), place)
        for path in DOCS
        for place in re.findall(r"(?<![\w/.])tests/[\w/]+(?:\.py)?", path.read_text())
    }
    assert cited
    assert [(path, place) for path, place in sorted(cited) if not (ROOT / place).exists()] == []
