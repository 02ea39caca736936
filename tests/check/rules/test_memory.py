from __future__ import annotations

import pytest

from proxy.check.rules.memory import MemoryFacts, judge
from tests.check.rules.lines import findings, only, seen

MIB = 1 << 20
pytestmark = pytest.mark.failure("33")


@pytest.mark.parametrize(
    ("limit", "memory", "expected"),
    [
        (128, None, []), (1024, None, []), (1024, 423, []), (128, 31, []), (128, 32, [("memory-limit", "note")]),
        (128, 62, [("memory-limit", "note")]), (128, 63, [("memory-limit", "wrong")]),
        (64, None, [("memory-limit", "note")]),
        (128, 512, [("memory-limit", "wrong")]), (48, None, [("memory-limit", "wrong")]),
    ],
)  # fmt: skip
def test_limit_and_setting(limit: int, memory: int | None, expected: list[tuple[str, str]]) -> None:
    set_to = None if memory is None else memory * MIB
    assert findings(judge(MemoryFacts(owner="it", limit=limit * MIB, file="f", memory=set_to))) == expected


def test_what_it_says() -> None:
    found = only(judge(MemoryFacts(owner="it", limit=128 * MIB, file="/x/memory.max", memory=512 * MIB)))
    assert found.read == (
        "it is in a cgroup that may take 128 MiB (/x/memory.max), of which 62 MiB are left beside the proxy itself and "
        "the kernel's buffers; limits.memory = 512 MiB"
    )
    assert found.mend.startswith("limits.memory: 31MiB, or null, or MemoryMax=")
    limit = int(found.mend.partition("MemoryMax=")[2].partition("M")[0])
    assert findings(judge(MemoryFacts(limit=limit * MIB, memory=512 * MIB))) == []


def test_the_default_is_named_as_such() -> None:
    (said,) = seen(judge(MemoryFacts(owner="it", limit=128 * MIB, file="f")))
    assert said.endswith("limits.memory = 31 MiB, the default here")


def test_without_a_limit() -> None:
    assert seen(judge(MemoryFacts(owner="it"))) == ["it has no memory limit that can be seen from here"]
