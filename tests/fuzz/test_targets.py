"""The fuzz targets without the fuzzer: over the committed corpus, and over changes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.corpus import CORPUS, seeds
from tests.fuzz.targets import TARGETS
from tests.tools.whole import whole

INPUTS = sorted(path for name in TARGETS for path in (CORPUS / name).iterdir())


@pytest.mark.failure(18)
@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_corpus(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


def test_the_examples_of_the_specification_are_in_it() -> None:
    assert {name: (CORPUS / name).read_bytes() for name, _ in seeds()} == dict(seeds())


@pytest.mark.failure(18)
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=whole(20_000, quick=100))
@given(data=st.data())
def test_the_corpus_with_pieces_changed(name: str, data: st.DataObject) -> None:
    """Any input of the corpus with some of its bytes replaced, left out or put in."""
    said = bytearray(data.draw(st.sampled_from([path for path in INPUTS if path.parent.name == name])).read_bytes())
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(said)))
        said[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    TARGETS[name](bytes(said))
