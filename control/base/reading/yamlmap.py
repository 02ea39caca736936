"""A YAML text as plain data plus the line of every key, so that an error can say where.

Only the part of YAML that a configuration needs: mappings, lists and plain scalars. Anchors, aliases and tags are
refused: they are how a small file becomes a huge or a cyclic one, or code. So are line ends other than LF and CRLF: in
YAML 1.1 they end a comment, and few editors show them. Scalars follow YAML 1.2, where ``no`` is a
word, ``22:22`` is not a number of seconds and ``0660`` is not 432.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NoReturn

import yaml
from msgspec import UNSET

from control.base.reading.units import quote, show
from control.base.reading.variables import substituted

Path = tuple[str | int, ...]
"""The way to a value from the top: keys, and positions in lists."""

MAX_DEPTH = 16
"""Deepest nesting that is read; the configuration needs 4. Composing is recursive, so something must stop it."""

_WORDS: dict[str, bool | None] = {"": None, "~": None, "null": None, "true": True, "false": False}
# At most 18 digits: a longer one is nobody's setting, and int() refuses thousands of digits with an error of its own.
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})", re.ASCII)
_DECIMAL = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})?\.[0-9]{1,18}", re.ASCII)

# "[fd00::1]:7600", which YAML takes for a list and something behind it: an IPv6 address, or anything with a port. No
# part is longer than it can be: on a long line that is none, the search would hold the interpreter and the proxy.
_BRACKETS = re.compile(
    r"(?:tcp:)?\[(?:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f.:]{0,45}:[0-9A-Fa-f.:]{0,45}(?:%[\w.-]{1,15})?\](?:[:/][0-9]{1,5})?"
    r"|[\w.:%-]{1,253}\][:/][0-9]{1,5})",
    re.ASCII,
)

# Where PyYAML's scanner ends a line, and with it a comment, and a person reading the file does not see one.
_HIDDEN_BREAK = re.compile("[\x85\u2028\u2029]|\r(?!\n)")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a file; ``text`` is "what was found; what is allowed"."""

    line: int
    path: Path
    text: str

    def render(self, file: str) -> str:
        """``FILE:LINE: key.path: text``, one line whatever the file holds."""
        where = f"{render_path(self.path)}: " if self.path else ""
        return f"{file}:{self.line}: {where}{self.text}"


@dataclass
class Document:
    """The plain data of a file (UNSET where a value is wrong), the line of every key and list item, and what is wrong
    with the YAML itself.
    """

    data: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    environment: Mapping[str, str] = field(default_factory=dict)
    variables: dict[Path, list[str]] = field(default_factory=dict)
    """The variables of the environment that a value has come from."""

    def line(self, path: Path) -> int:
        """The line of the key, or of the nearest one around it that the file has: a missing key's is its section's."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def problem(self, path: Path, text: str) -> None:
        self.problems.append(Problem(self.line(path), path, text))


def read(text: str, environment: Mapping[str, str] | None = None) -> Document:
    """Read one YAML document, with the variables of `environment` (default: the process's) in its values. Never raises:
    what is wrong stands in ``problems``, what could be read in ``data``.
    """
    document = Document(environment=os.environ if environment is None else environment)
    document.problems += _hidden_breaks(text)
    if document.problems:
        return document
    try:
        node = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        document.problems.append(_syntax_problem(error, text))
    # PyYAML lets int() and chr() fail on absurd directives and escapes, and its reader has an error without a mark.
    except (yaml.YAMLError, ValueError, OverflowError):
        line, found = _odd_character(text)
        document.problems.append(Problem(line, (), f"found {found}; allowed: YAML text"))
    else:
        if node is not None:
            document.lines[()] = _line(node)
            document.data = _plain(node, (), document)
    return document


def render_path(path: Path) -> str:
    """``peers.host-b.services[1]``."""
    parts = []
    for part in path:
        if isinstance(part, int):
            parts.append(f"[{part}]")
            continue
        plain = re.fullmatch(r"[\w.-]{1,63}", part, re.ASCII)
        parts.append(f".{part if plain else show(part)}")
    return "".join(parts).removeprefix(".")


class _Loader(yaml.SafeLoader):
    """Composes nodes only, without implicit types; refuses what the module docstring says."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            self._refuse("anchors and aliases (& and *) are not supported; write the value out", event)
        if getattr(event, "tag", None) is not None:
            self._refuse("tags (!) are not supported; write the value in quotes", event)
        if self.depth >= MAX_DEPTH:
            self._refuse(f"nested more than {MAX_DEPTH} levels deep", event)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def _refuse(self, text: str, event: yaml.Event) -> NoReturn:
        raise yaml.MarkedYAMLError(problem=text, problem_mark=event.start_mark)  # type: ignore[arg-type]


def _plain(node: yaml.Node, path: Path, document: Document) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, document)
    if isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            document.lines[*path, position] = _line(item)
        return [_plain(item, (*path, position), document) for position, item in enumerate(node.value)]
    assert isinstance(node, yaml.ScalarNode)
    return _value(node, path, document)


def _value(node: yaml.ScalarNode, path: Path, document: Document) -> Any:
    try:
        text, names = substituted(node.value, document.environment)
    except ValueError as error:
        document.problems.append(Problem(_line(node), path, str(error)))
        return UNSET
    if names:
        document.variables[path] = names
    return text if node.style else plain_value(text)


def _mapping(node: yaml.MappingNode, path: Path, document: Document) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = _line(key_node)
        if not isinstance(key_node, yaml.ScalarNode):
            written = _brackets(key_node, value_node)
            text = _unquoted(written) if written else "found a key that is itself a mapping or list; allowed: a word"
            document.problems.append(Problem(line, path, text))
            continue
        key = key_node.value
        if key in data:
            text = f"written a second time; the first is on line {document.lines[*path, key]}"
            document.problems.append(Problem(line, (*path, key), text))
            continue
        document.lines[*path, key] = line
        data[key] = _plain(value_node, (*path, key), document)
    return data


def _brackets(key: yaml.Node, value: yaml.Node) -> str:
    """The address that was written where YAML found a list as a key: ``{[fd00::1]:7600}``; empty if it was none."""
    parts = [*key.value, value] if isinstance(key, yaml.SequenceNode) else []
    adjacent = value.start_mark.index == key.end_mark.index + 1
    if adjacent and len(parts) == 2 and all(isinstance(part, yaml.ScalarNode) for part in parts):
        written = f"[{parts[0].value}]:{parts[1].value}"
        return written if _BRACKETS.fullmatch(written) else ""
    return ""


def _unquoted(written: str) -> str:
    return f"found {written} without quotes, where [ ] make a list; allowed: {quote(written)}, in quotes"


def plain_value(text: str) -> Any:
    """The value of a scalar without quotes."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) else text


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _syntax_problem(error: yaml.MarkedYAMLError, text: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, index = (mark.line + 1, mark.index) if mark else (1, len(text))
    if text[index : index + 1] == "\t":
        return Problem(line, (), "found a tab; allowed: spaces for indentation")
    start = text.rfind("\n", 0, index) + 1
    for match in _BRACKETS.finditer(text[start:].partition("\n")[0]):
        if match.start() <= index - start <= match.end():
            return Problem(line, (), _unquoted(match.group()))
    what = " ".join(": ".join(filter(None, (error.context, error.problem))).split())
    return Problem(line, (), f"not valid YAML: {what}")


def _hidden_breaks(text: str) -> list[Problem]:
    """At most one problem, at the first such line: who has it on all lines has one program to blame, not each line."""
    lines = enumerate(re.split(r"\r?\n", text), start=1)
    odd = [(number, match.group()) for number, line in lines if (match := _HIDDEN_BREAK.search(line))]
    if not odd:
        return []
    number, character = odd[0]
    also = f", here and on {len(odd) - 1} more" if len(odd) > 1 else ""
    found = f"found the character {quote(character)}, which ends a line of YAML but shows as none{also}"
    return [Problem(number, (), f"{found}; allowed: lines that end in LF or CRLF")]


def _odd_character(text: str) -> tuple[int, str]:
    """Line and name of the first character that YAML does not allow; else of whatever PyYAML stumbled over."""
    for number, line in enumerate(text.split("\n"), start=1):
        odd = yaml.reader.Reader.NON_PRINTABLE.search(line)
        if odd:
            return number, f"the character {quote(odd.group())}"
    return 1, "an escape or directive with an impossible number"
