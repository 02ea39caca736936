from __future__ import annotations

from pathlib import Path

import pytest

from proxy.cdi.build import FLAGS, SOURCE
from tests.tools.compiled import compiled


@pytest.fixture(scope="session")
def hook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hook, as it is installed."""
    return compiled(SOURCE, tmp_path_factory.mktemp("hook") / "hostlane-hook", *FLAGS)


@pytest.fixture(scope="session")
def checked_hook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hook, which ends with what a sanitizer says of it."""
    flags = ("-std=c11", "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    return compiled(SOURCE, tmp_path_factory.mktemp("checked") / "hostlane-hook", *flags)
