from __future__ import annotations

import pytest

from control.base.reading import yamlmap
from control.base.reading.variables import substituted
from proxy.config import schema
from proxy.errors import ConfigError

SET = {"A": "one", "N": "3", "EMPTY": "", "ODD": "x: [1, *y]  # z"}


@pytest.mark.parametrize(
    ("text", "found", "names"),
    [
        ("plain", "plain", []),
        ("$", "$", []),
        ("a$b", "a$b", []),
        ("$$", "$", []),
        ("$${A}", "${A}", []),
        ("${A}", "one", ["A"]),
        ("<${A}-${N}>", "<one-3>", ["A", "N"]),
        ("${NOT:-other}", "other", []),
        ("${EMPTY:-other}", "other", []),
        ("${EMPTY}", "", ["EMPTY"]),
        ("${A:-other}", "one", ["A"]),
        ("${NOT:-}", "", []),
        ("${NOT:-a:-b}", "a:-b", []),
    ],
)
def test_substituted(text: str, found: str, names: list[str]) -> None:
    assert substituted(text, SET) == (found, names)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "${NOT}",
            "found ${NOT}, which is not set in the environment; allowed: a variable that is set, or ${NOT:-default}",
        ),
        ("${", 'found "${"; allowed: ${NAME}, ${NAME:-default}, or $$ for a $'),
        ("x${A", 'found "${A"; allowed: ${NAME}, ${NAME:-default}, or $$ for a $'),
        ("${A-b}", 'found "${A-b}"; allowed: ${NAME}, ${NAME:-default}, or $$ for a $'),
        ("${1}", 'found "${1}"; allowed: ${NAME}, ${NAME:-default}, or $$ for a $'),
    ],
)  # fmt: skip
def test_what_cannot_be(text: str, found: str) -> None:
    with pytest.raises(ValueError) as caught:
        substituted(text, SET)
    assert str(caught.value) == found


def test_a_variable_is_one_value_whatever_is_in_it() -> None:
    document = yamlmap.read('a: ${ODD}\nb:\n  - ${N}\n  - "${N}"\n${A}: 1\n', SET)
    assert document.data == {"a": SET["ODD"], "b": [3, "3"], "${A}": 1}
    assert document.variables == {("a",): ["ODD"], ("b", 0): ["N"], ("b", 1): ["N"]}


def test_in_a_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    links = "  listen: ${HL_IP:-127.0.0.1}:7600\n  security: none\n  max_per_peer: ${HL_LINKS}\n"
    text = f"host: ${{HL_HOST}}\nlinks:\n{links}"
    monkeypatch.setenv("HL_HOST", "host-a")
    monkeypatch.setenv("HL_LINKS", "5")
    found = schema.parse(text, "f.yaml")
    assert (found.host, found.links.listen.hostport, found.links.max_per_peer) == ("host-a", "127.0.0.1:7600", 5)
    monkeypatch.delenv("HL_LINKS")
    monkeypatch.setenv("HL_HOST", "Host A")
    with pytest.raises(ConfigError) as caught:
        schema.parse(text, "f.yaml")
    assert [line.partition(";")[0] for line in caught.value.problems] == [
        'f.yaml:1: host: found "Host A"',
        "f.yaml:5: links.max_per_peer: found ${HL_LINKS}, which is not set in the environment",
    ]
