"""What documents point at exists: files and headings that they link to, commands they name, tests they cite."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from control.cli.main import hostlane

ROOT = Path(__file__).resolve().parents[2]
OURS = ("*.md", "docs/*.md", "proxy/**/*.md", "control/**/*.md", "benchmarks/*.md", "compose/*.md", "tests/**/*.md")
DOCS = sorted({path for pattern in OURS for path in ROOT.glob(pattern)})
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
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


def typed(text: str) -> Iterator[list[str]]:
    """What follows the command ``hostlane`` in each line of a shell (or a unit) that a document shows."""
    for language, block in FENCE.findall(text):
        if language in ("", "sh", "console", "ini"):
            for line in re.sub(r"\\\n", " ", block).splitlines():
                if language in ("", "console") and not re.match(r"\S*[$#] |hostlane [a-z]+ [a-z]+ [\w.]+$", line):
                    continue  # what a command has printed
                for part in re.split(r"\s(?:&&|\|\|?|&|>|;)(?:\s|$)", re.sub(r"^\S*[$#] ", "", line)):
                    words = _words(part)
                    ours = [word == "hostlane" or word.endswith("/bin/hostlane") for word in words]
                    # Not in docker build -t hostlane
                    places = [at for at, is_ours in enumerate(ours) if is_ours and words[at - 1] != "-t"]
                    if places and places[0] + 1 < len(words):
                        yield words[places[0] + 1 :]


def _words(line: str) -> list[str]:
    try:
        return shlex.split(re.sub(r"\$\([^)]*\)", "x", line), comments=True)
    except ValueError:  # prose, or what a command has printed
        return []


def wrong(words: list[str]) -> str:
    """Why the command line does not take this; empty: it does."""
    command: click.Command = hostlane
    rest = list(words)
    while isinstance(command, click.Group) and rest:
        found = command.get_command(click.Context(command), rest[0])
        if found is None and not rest[0].startswith("-"):
            return f"hostlane {shlex.join(words)}: no such command"
        if found is None:
            break
        command, rest = found, rest[1:]
    try:
        with command.make_context("hostlane", rest, allow_interspersed_args=True):
            return ""
    except click.exceptions.Exit:
        return ""  # --version, say
    except click.ClickException as error:
        return f"hostlane {shlex.join(words)}: {error.format_message()}"


@pytest.mark.parametrize("path", [path for path in DOCS if list(typed(path.read_text()))], ids=name)
def test_what_documents_type_is_taken(path: Path) -> None:
    assert list(filter(None, map(wrong, typed(path.read_text())))) == []


def test_what_is_wrongly_typed_is_found() -> None:
    text = """```console
host-a$ hostlane token create --host a > token   # once
host-a# hostlane call redis --wait never
```
```ini
ExecStart=/opt/bin/hostlane proxy --gone x
```
```sh
docker run -v hostlane-x:/x hostlane links extra && hostlane hosts --json | jq .
hostlane drain --timeout \\
  long
hostlane gone
```"""
    found = [wrong(words) for words in typed(text)]
    assert [bool(each) for each in found] == [False, True, True, True, False, True, True], found


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
