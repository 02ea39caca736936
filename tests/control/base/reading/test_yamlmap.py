from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.base.reading import yamlmap
from control.base.reading.yamlmap import read, render_path


def problems(text: str) -> list[str]:
    return [problem.render("f") for problem in read(text).problems]


def test_data_and_lines() -> None:
    document = read("a: 1\nb:\n  c: [x,\n    y]\n  d: {e: text}\n")
    assert document.data == {"a": 1, "b": {"c": ["x", "y"], "d": {"e": "text"}}}
    assert document.problems == []
    assert document.lines == {
        (): 1, ("a",): 1, ("b",): 2, ("b", "c"): 3, ("b", "c", 0): 3, ("b", "c", 1): 4, ("b", "d"): 5,
        ("b", "d", "e"): 5,
    }  # fmt: skip


def test_the_line_of_a_missing_key_is_that_of_its_section() -> None:
    document = read("\n\na:\n  b: 1\n")
    assert document.line(("a", "c", "d")) == 3
    assert document.line(("x",)) == 3
    assert read("").line(("x",)) == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5), ("-5", -5), ("0", 0), ("1.5", 1.5), (".5", 0.5), ("true", True), ("False", False),
        ("null", None), ("~", None), ("", None),
        # YAML 1.1 makes 438, 79200, False, a date, 256 and infinity of these.
        ("0666", "0666"), ("22:00", "22:00"), ("no", "no"), ("2024-01-01", "2024-01-01"), ("0x100", "0x100"),
        (".inf", ".inf"),
        ('"5"', "5"), ("'true'", "true"), ('""', ""), ("10.77.0.1:7600", "10.77.0.1:7600"), ("9" * 19, "9" * 19),
    ],
)  # fmt: skip
def test_scalars(text: str, value: object) -> None:
    found = read(f"a: {text}\n").data["a"]
    assert found == value
    assert type(found) is type(value)


def test_keys_are_text() -> None:
    assert read("1: a\nno: b\n~: c\n").data == {"1": "a", "no": "b", "~": "c"}


def test_duplicate_keys() -> None:
    document = read("a: 1\nb: {c: 1, c: 2}\na: 3\n")
    assert document.data == {"a": 1, "b": {"c": 1}}
    assert [problem.render("f") for problem in document.problems] == [
        "f:2: b.c: written a second time; the first is on line 2",
        "f:3: a: written a second time; the first is on line 1",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:\n\tb: 1\n", "f:2: found a tab; allowed: spaces for indentation"),
        ("a: 1\n  b: 2\n", "f:2: not valid YAML: mapping values are not allowed here"),
        ("a: [1\nb: 2\n", "f:2: not valid YAML: while parsing a flow sequence: expected ',' or ']', but got ':'"),
        ('a: "x\n', "f:2: not valid YAML: while scanning a quoted scalar: found unexpected end of stream"),
        ("a: 1\n---\nb: 1\n",
         "f:2: not valid YAML: expected a single document in the stream: but found another document"),
        ("a: &x 1\nb: *x\n",
         "f:1: not valid YAML: anchors and aliases (& and *) are not supported; write the value out"),
        ("b: *x\n", "f:1: not valid YAML: anchors and aliases (& and *) are not supported; write the value out"),
        ("a: !!python/object:os.system x\n",
         "f:1: not valid YAML: tags (!) are not supported; write the value in quotes"),
        ("a: ! x\n", "f:1: not valid YAML: tags (!) are not supported; write the value in quotes"),
        ("a: " + "[" * 20 + "]" * 20, "f:1: not valid YAML: nested more than 16 levels deep"),
        ("a: " + "[" * 5000, "f:1: not valid YAML: nested more than 16 levels deep"),
        ("a: 1\nb: \x07\n", 'f:2: found the character "\\u0007"; allowed: YAML text'),
        ("a: \ud800\n", 'f:1: found the character "\\ud800"; allowed: YAML text'),
        ('a: "\\UFFFFFFFF"\n', "f:1: found an escape or directive with an impossible number; allowed: YAML text"),
        (f"%YAML {'1' * 5000}.1\n---\na: 1\n",
         "f:1: found an escape or directive with an impossible number; allowed: YAML text"),
        ("? [a]\n: 1\n", "f:1: found a key that is itself a mapping or list; allowed: a word"),
    ],
)  # fmt: skip
def test_problems(text: str, expected: str) -> None:
    assert problems(text) == [expected]


@pytest.mark.failure("34")
@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\r"])
@pytest.mark.parametrize("before", ["# note ", "b: c ", 'b: "', "b: [c, ", "", "b: |\n  c "])
def test_a_line_ends_where_everybody_sees_it_end(before: str, character: str) -> None:
    name = yamlmap.quote(character)
    assert problems(f"a: 1\r\n{before}{character}security: none\n") == [
        f"f:{2 + before.count(chr(10))}: found the character {name}, which ends a line of YAML but shows as none; "
        "allowed: lines that end in LF or CRLF"
    ]


@pytest.mark.failure("34")
@pytest.mark.parametrize(
    ("text", "line", "also"),
    [
        ("a: 1\r\r\n" * 500, 1, ", here and on 499 more"),  # written in text mode with CRLF in it
        ("a: 1\r" * 500, 1, ""),  # an old Mac's: one line, for everybody else
        ("# fine\r\n# a\r\n" + "# \u2028\r\n# fine\r\n# b\u2029\x85\n", 3, ", here and on 1 more"),
        ("\r\r\r\n\r\n\r\r", 1, ", here and on 1 more"),
    ],
    ids=["CR CR LF", "CR", "mixed", "empty"],
)
def test_hidden_line_ends_are_one_problem_of_a_file(text: str, line: int, also: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith(f"f:{line}: found the character ")
    assert problem.endswith(f"shows as none{also}; allowed: lines that end in LF or CRLF")


def test_hidden_line_ends_may_stand_as_escapes() -> None:
    assert read('a: "x\\u2028y\\x85z\\r"\r\nb: 1\r\n').data == {"a": "x\u2028y\x85z\r", "b": 1}


BRACKETS = [
    ("links:\n  listen: {}\n  security: none\n", 2),
    ("links: {{listen: {}, security: none}}\n", 1),
    ("a:\n  - x\n  - {}\n  - y\n", 3),
    ("a: [{}, {}]\n", 1),
    ("a: {}  # links\r\n", 1),
]


@pytest.mark.failure("34")
@pytest.mark.parametrize(("text", "line"), BRACKETS, ids=range(len(BRACKETS)))
@pytest.mark.parametrize("address", ["[fd00::1]:7600", "[::1]:80", "[::]:1", "[fe80::1%eth0.5]:7600", "[fd00::1]/64"])
def test_brackets_need_quotes(text: str, line: int, address: str) -> None:
    found = problems(text.format(address, address))
    assert f'found {address} without quotes, where [ ] make a list; allowed: "{address}", in quotes' in found[0]
    assert found[0].startswith(f"f:{line}: ")
    quoted = read(text.format(f'"{address}"', f'"{address}"'))
    assert quoted.problems == []


@pytest.mark.parametrize("address", ["[10.0.0.1]:80", "[host-b]:7600", "tcp:[::1]:80"])
def test_other_things_with_brackets(address: str) -> None:
    found = f'found {address} without quotes, where [ ] make a list; allowed: "{address}", in quotes'
    assert problems(f"a: {{b: {address}}}\n") == [f"f:1: {found}"]


def test_the_port_may_stand_in_brackets_elsewhere_on_the_line() -> None:
    assert problems('a: {b: "[::1]:80", c: [d: e}\n')[0].startswith("f:1: not valid YAML: ")


def test_render_path() -> None:
    assert render_path(()) == ""
    assert render_path(("peers", "host-b", "services", 1)) == "peers.host-b.services[1]"
    assert render_path(("a\nb", "")) == '"a\\nb".""'
    assert render_path(("x" * 64,)) == '"' + "x" * 60 + '..."'


@given(st.text() | st.text(alphabet="ab:-?[]{}&*!|>%@#'\",\n\t \\\0.1~<=", max_size=60))
def test_any_text_gives_data_or_problems(text: str) -> None:
    document = read(text)
    assert all(problem.render("f").isprintable() and problem.line >= 1 for problem in document.problems)
    assert depth(document.data) <= yamlmap.MAX_DEPTH


def depth(data: object) -> int:
    below = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    return 1 + max((depth(value) for value in below), default=0)


@pytest.mark.parametrize("filling", [":" * 50_000, "a" * 50_000, "1:" * 50_000], ids=["colons", "letters", "both"])
def test_a_long_line_that_is_no_address_is_passed_over(filling: str) -> None:
    (problem,) = read(f"a: [{filling} x, y] z\n").problems
    assert problem.text.startswith("not valid YAML: ")
