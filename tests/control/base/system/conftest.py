"""What the tests of Unix sockets share."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short, because a Unix socket's path must be, and open to every user: pytest's tmp_path is neither."""
    path = Path(tempfile.mkdtemp(prefix="hl-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)
