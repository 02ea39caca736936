from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource
from control.base.system.descriptors import use_all_descriptors
use_all_descriptors()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.failure("21b-b")
@pytest.mark.parametrize(("soft", "hard"), [(256, 600), (700, 700), (10, 300)])
def test_the_soft_limit_is_raised(soft: int, hard: int) -> None:
    shell = f'ulimit -Sn {soft} && ulimit -Hn {hard} && exec "$@"'
    argv = ["sh", "-c", shell, "sh", sys.executable, "-c", SCRIPT]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == f"{hard} {hard}\n"
