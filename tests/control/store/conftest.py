"""A store of each kind, for the tests that run against both."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from control.store.base import Store
from control.store.etcd import open_etcd
from control.store.gateway import EtcdAccess
from control.store.sqlite import open_sqlite
from tests.control.store.etcds import Etcd

PREFIXES = (f"test-{number}/" for number in itertools.count())


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """One member, for all tests that let it live (mark them ``etcd``)."""
    with Etcd(tmp_path_factory.mktemp("etcd")) as running:
        yield running


@pytest.fixture
def access(etcd: Etcd) -> EtcdAccess:
    """A part of etcd that is empty."""
    return EtcdAccess(etcd.endpoints, prefix=next(PREFIXES))


@pytest.fixture(params=["sqlite", pytest.param("etcd", marks=pytest.mark.etcd)])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """An open store that began empty."""
    if request.param == "sqlite":
        opening = open_sqlite(str(tmp_path / "store.db"))
    else:
        opening = open_etcd(request.getfixturevalue("access"))
    async with opening as opened:
        yield opened
