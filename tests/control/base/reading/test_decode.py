from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from msgspec import UNSET, Meta, Struct, field

from control.base.reading.decode import MAX_UNKNOWN_KEYS, Decoder
from control.base.reading.yamlmap import Document, read


def shout(raw: object) -> str:
    if not isinstance(raw, str):
        raise ValueError("found no text; allowed: text")
    return raw.upper()


Shouted = Annotated[str, Meta(description="something to shout", extra={"reader": shout})]


class Inner(Struct, frozen=True, forbid_unknown_fields=True):
    count: Annotated[int, Meta(ge=1, le=3, description="1 to 3")]
    kind: Literal["x", "y"] = "x"


class Reserved(Struct, frozen=True, forbid_unknown_fields=True):
    origin: Literal["x", "y"] = field(name="from")


class Outer(Struct, frozen=True, forbid_unknown_fields=True):
    word: Shouted
    inner: Inner
    items: tuple[Shouted, ...] = ()
    named: dict[Shouted, Inner] = {}
    either: str | int | None = None
    maybe: Inner | None = None
    plain: int = 0


def decode(text: str) -> tuple[Any, Document, Decoder]:
    document = read(text)
    decoder = Decoder(document)
    return decoder.decode(document.data, Outer), document, decoder


def problems(text: str) -> list[str]:
    return [problem.render("f") for problem in decode(text)[1].problems]


def test_a_right_document() -> None:
    value, document, decoder = decode(
        "word: a\ninner: {count: 2, kind: y}\nitems: [b]\nnamed: {n: {count: 1}}\neither: z\nplain: 7\n"
    )
    assert document.problems == []
    assert decoder.unknown == set()
    assert value == Outer("A", Inner(2, "y"), ("B",), {"n": Inner(1)}, "z", None, 7)
    assert decode(RIGHT + "maybe: {count: 3}\n")[0].maybe == Inner(3)


RIGHT = "word: a\ninner: {count: 2}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (RIGHT + "maybe: {count: 4}\n", "maybe.count: found 4; allowed: 1 to 3"),
        (RIGHT + "maybe: {}\n", "maybe.count: missing; allowed: 1 to 3"),
        (RIGHT + "plain: x\n", 'plain: found "x"; allowed: a whole number'),
        (RIGHT + "plain: true\n", "plain: found true; allowed: a whole number"),
        (RIGHT + "plain: 1.5\n", "plain: found 1.5; allowed: a whole number"),
        (RIGHT + "plain: 1.0\n", "plain: found 1.0; allowed: a whole number"),
        (RIGHT + "plain:\n", "plain: found nothing; allowed: a whole number"),
        (RIGHT + "either: [1]\n", "either: found a list; allowed: text or a whole number"),
        (RIGHT + "items: b\n", 'items: found "b"; allowed: a list such as [a, b]'),
        (RIGHT + "items: [b, 1]\n", "items[1]: found no text; allowed: text"),
        (RIGHT + "named: [b]\n", "named: found a list; allowed: a mapping, one entry a name"),
        (RIGHT + "named: {n: 1}\n", "named.n: found 1; allowed: a mapping with count, kind"),
        (RIGHT + "named: {n: {count: 4}}\n", "named.n.count: found 4; allowed: 1 to 3"),
        (RIGHT + "named: {n: {count: 3, kind: z}}\n", 'named.n.kind: found "z"; allowed: x | y'),
        (RIGHT + "named: {n: }\n", "named.n.count: missing; allowed: 1 to 3"),
        (RIGHT + "plian: 1\n",
         'plian: unknown key (did you mean "plain"?); allowed: word, inner, items, named, either, maybe, plain'),
        (RIGHT + "zzz: 1\n", "zzz: unknown key; allowed: word, inner, items, named, either, maybe, plain"),
    ],
)  # fmt: skip
def test_problems(text: str, expected: str) -> None:
    assert problems(text) == [f"f:3: {expected}"]


def test_missing() -> None:
    assert problems("plain: 1\n") == [
        "f:1: word: missing; allowed: something to shout",
        "f:1: inner.count: missing; allowed: 1 to 3",
    ]


def test_a_key_may_be_a_word_of_pythons_own() -> None:
    document = read("from: y\n")
    assert Decoder(document).decode(document.data, Reserved) == Reserved(origin="y")
    for text, problem in (
        ("from: z\n", 'f:1: from: found "z"; allowed: x | y'),
        ("origin: x\nfrom: x\n", "f:1: origin: unknown key; allowed: from"),
        ("{}\n", "f:1: from: missing; allowed: x | y"),
    ):
        document = read(text)
        Decoder(document).decode(document.data, Reserved)
        assert [each.render("f") for each in document.problems] == [problem]


def test_what_is_wrong_is_unset_and_the_rest_is_there() -> None:
    value, _, decoder = decode("word: 1\ninner: {count: 9, kimd: y}\nnamed: {m: {count: 1}, n: []}\n")
    assert value.word is UNSET
    assert value.inner == Inner(UNSET)  # type: ignore[arg-type]
    assert value.named == {"m": Inner(1), "n": UNSET}
    assert decoder.unknown == {("inner",)}


def test_another_program_s_file_does_not_fill_the_screen() -> None:
    text = RIGHT + "".join(f"k{number}: 1\n" for number in range(100))
    assert len(problems(text)) == MAX_UNKNOWN_KEYS
