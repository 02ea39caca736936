"""How many descriptors this process may open."""

from __future__ import annotations

import resource
from contextlib import suppress


def use_all_descriptors() -> None:
    """Raise the soft limit to the hard one. The soft one, 1,024 on many systems, is there for programs that use
    select(2), which cannot take a higher descriptor (setrlimit(2)); neither we nor our libraries do. Where this is
    denied, the limit stays.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
