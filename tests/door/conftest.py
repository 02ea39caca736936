"""Containers' network namespaces, as an engine has them: a file for each, in one directory."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator

import pytest

from proxy.demo import netns

DIRECTORY = "/run/netns"
_serials = itertools.count()


@pytest.fixture
def namespace() -> Iterator[Callable[[], str]]:
    """Makes a namespace with a loopback interface; returns its file's name in DIRECTORY (mark tests ``netns``)."""
    made: list[str] = []

    def make() -> str:
        made.append(f"{netns.PREFIX}-{os.getpid()}-{next(_serials)}-room")
        netns.add(made[-1])
        return made[-1]

    yield make
    for name in made:
        netns.delete(name)
