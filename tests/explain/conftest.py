from __future__ import annotations

from tests.check.conftest import ground

__all__ = ["ground"]
