from __future__ import annotations

import functools
import re

import pytest

from control.base.reading import units
from control.base.reading.shape import NULL, shape_of, takes, text


def test_a_reader_says_what_it_takes() -> None:
    shape = shape_of(functools.partial(units.size, low="1B"))
    assert re.search(shape["pattern"], "4MiB")
    assert not re.search(shape["pattern"], "4 MiB")
    assert shape_of(units.or_null(units.size)) == {"anyOf": [shape, NULL]}


def test_a_pattern_is_of_the_whole_text() -> None:
    pattern = text("a|b")["pattern"]
    assert [bool(re.search(pattern, found)) for found in ("a", "b", "ab", "xb")] == [True, True, False, False]


def test_one_that_does_not_say() -> None:
    def reader(raw: object) -> object:
        return raw

    with pytest.raises(LookupError):
        shape_of(reader)
    assert shape_of(takes(NULL)(reader)) == NULL
