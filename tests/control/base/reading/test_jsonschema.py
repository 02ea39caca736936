"""The schemas, as another program reads them: they and ``validate`` agree on every example, and on every example with
something wrong in it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from control.base.errors import ConfigError
from control.base.reading import yamlmap
from control.cli.filekinds import KINDS, kind_of
from control.cli.schemacommand import text

ROOT = Path(__file__).resolve().parents[4]
EXAMPLES = [*sorted((ROOT / "configs").glob("*.yaml")), *sorted((ROOT / "compose").glob("hostlane-*.yaml"))]
VALIDATORS = {name: jsonschema.Draft202012Validator(json.loads(text(name))) for name in KINDS}


def name_of(path: Path) -> str:
    return next(name for name, kind in KINDS.items() if kind is kind_of(path.read_text(), path.name))


def says_schema(name: str, data: Any) -> bool:
    return VALIDATORS[name].is_valid(data)


def says_validate(name: str, data: Any) -> bool:
    try:
        KINDS[name].examined(json.dumps(data), "f")
    except ConfigError:
        return False
    return True


def mutations(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Where something is changed so that no file may say it, and what stands there then; at each leaf one of four."""
    if isinstance(data, dict):
        yield (*path, "no_such_key" if len(path) != 1 else "No Such Name"), {}
        for key, value in data.items():
            yield from mutations(value, (*path, key))
    elif isinstance(data, list):
        yield path, "no list"
        for position, value in enumerate(data):
            yield from mutations(value, (*path, position))
    else:
        wrong = [{"a": "mapping"}, [data], "\x00 nothing of ours", *([] if isinstance(data, bool) else [True])]
        yield path, wrong[len(str(path)) % len(wrong)]


def changed(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    found = copy.deepcopy(data)
    at = found
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return found


def is_text(name: str, path: tuple[Any, ...]) -> bool:
    """Keys where any text may stand."""
    return path[-1] in ("user",)


@pytest.mark.parametrize("name", KINDS)
def test_the_files_are_what_the_command_prints(name: str) -> None:
    path = ROOT / "configs" / "schema" / f"{name}.json"
    assert path.read_text() == text(name) + "\n", f"write it again: hostlane schema {name} > configs/schema/{name}.json"
    jsonschema.Draft202012Validator.check_schema(json.loads(text(name)))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_names_its_schema_and_fits_it(path: Path) -> None:
    name, content = name_of(path), path.read_text()
    modeline = content.splitlines()[0]
    place = modeline.removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / place).resolve() == ROOT / "configs" / "schema" / f"{name}.json"
    assert [error.message for error in VALIDATORS[name].iter_errors(yamlmap.read(content).data)] == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_both_refuse_the_same(path: Path) -> None:
    name, data = name_of(path), yamlmap.read(path.read_text()).data
    assert says_validate(name, data)
    count = 0
    for place, value in mutations(data):
        wrong = changed(data, place, value)
        if is_text(name, place) and isinstance(value, str):
            continue
        assert not says_validate(name, wrong), (place, value)
        assert not says_schema(name, wrong), (place, value)
        count += 1
    for key in ("host", "links") if name == "host" else ("name", "listen"):
        less = {each: value for each, value in data.items() if each != key}
        assert not says_validate(name, less)
        assert not says_schema(name, less)
    assert count > 2


@pytest.mark.parametrize("value", ["${HL_A}:7600", "${HL_A:-127.0.0.1}:7600", "${HL_B}"])
def test_variables_may_stand_anywhere(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HL_A", "127.0.0.1")
    monkeypatch.setenv("HL_B", "127.0.0.1:7600")
    data = {"host": "a", "links": {"listen": value, "security": "none"}}
    assert says_schema("host", data)
    assert says_validate("host", data)


def test_what_is_said_under_a_key_is_its_description() -> None:
    found = json.loads(text("host"))["properties"]["links"]["properties"]["max_per_peer"]
    assert found["description"].startswith("Most links to one peer")
    assert found["anyOf"][0] == {"type": "integer", "minimum": 1, "maximum": 64}
