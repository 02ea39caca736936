"""What all tests share: when a test may skip, one lab per test module, and no clock that outruns others."""

from __future__ import annotations

import functools
import os
import shutil
from collections import Counter
from collections.abc import Generator, Iterator
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, settings

from proxy.core import finder
from proxy.demo import lab as labs
from proxy.demo import redis
from proxy.pump import loop
from tests.control.store import etcds
from tests.docker import engines
from tests.tools import browser, nobody, prometheus
from tests.tools.jumps import Jumps, run_at_once

# A slow machine is not a wrong answer: no deadlines, here or anywhere in the tests.
settings.register_profile("hostlane", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("hostlane")

REQUIRED = os.environ.get("HOSTLANE_REQUIRE_NETNS") == "1"
"""Set by .ci/run: nothing may be missing that a test needs."""

REQUIRED_CORE = os.environ.get("HOSTLANE_REQUIRE_CORE", "")
"""compiled or python: what the tests, and the processes they start, must run; set by ``make test``. Which it is goes by
what lies beside the sources and by HOSTLANE_PURE."""

WHY_NOT = {
    "netns": functools.cache(labs.missing),
    "redis": functools.cache(redis.missing),
    "browser": browser.missing,
    "etcd": etcds.missing,
    "prometheus": prometheus.missing,
    "nobody": nobody.is_shut_out,
    "docker": functools.cache(engines.missing),
    "jq": lambda: None if shutil.which("jq") else "jq is not installed (Debian: apt-get install jq)",
}


TOOK = "hostlane/seconds-by-module"
"""In pytest's cache: what each module took in the last run of all tests by several processes."""
GUESSED = {"tests/system/": 1000.0, "": 100.0}
"""Of a module whose tests start processes, which says more than its size, while it is not known what it takes."""

_seconds: Counter[str] = Counter()


def pytest_configure() -> None:
    if REQUIRED_CORE not in ("", finder.core()):
        raise pytest.UsageError(f"HOSTLANE_REQUIRE_CORE={REQUIRED_CORE}, but the core would run as {finder.core()}")


def pytest_report_header() -> str:
    return f"core: {finder.core()}"


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """All processes must have the same order, whatever another run writes meanwhile."""
    cache = getattr(node.config, "cache", None)
    node.workerinput["took"] = cache.get(TOOK, {}) if cache else {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With several processes, the modules that take longest come first, so that none of them is what all wait for."""
    if not hasattr(config, "workerinput"):
        return
    took: dict[str, float] = {}
    for item in items:
        name = _module(item.nodeid)
        if name not in took and any(item.get_closest_marker(marker) for marker in WHY_NOT):
            took[name] = next(seconds for folder, seconds in GUESSED.items() if folder in name)
    took |= config.workerinput["took"]
    items.sort(key=lambda item: -took.get(_module(item.nodeid), 0.0))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _seconds[_module(report.nodeid)] += report.duration


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    nobody.remove_copy()
    asked, cache = session.config.option, getattr(session.config, "cache", None)
    spread = bool(getattr(asked, "tx", None)) and not hasattr(session.config, "workerinput")
    if cache and spread and exitstatus in (0, 1) and not asked.keyword and not asked.markexpr:
        cache.set(TOOK, cache.get(TOOK, {}) | {name: round(seconds, 1) for name, seconds in _seconds.items()})


def _module(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that cannot run here, saying why."""
    for marker, missing in WHY_NOT.items():
        if item.get_closest_marker(marker) is not None and (reason := missing()) is not None:
            pytest.skip(reason)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where all tests were promised to run, a skip is a failure, whoever skips: marker, fixture or the test itself."""
    report = yield
    if REQUIRED and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome, report.longrepr = "failed", f"HOSTLANE_REQUIRE_NETNS=1, but: {_reason(report)}"
    return report


def _reason(report: pytest.TestReport) -> str:
    """A skip's report is file, line and reason."""
    return report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else str(report.longrepr)


@pytest.fixture(scope="module")
def lab() -> Iterator[labs.Lab]:
    """Two hosts for the tests of one module (mark them ``netns``)."""
    with labs.Lab() as running:
        yield running


@pytest.fixture(autouse=True)
def no_lingering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several pumps share a test's thread: one that waits in the kernel keeps the others waiting."""
    monkeypatch.setattr(loop, "LINGER", 0)


@pytest.fixture(autouse=True)
def no_jump_past_others(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test whose clock jumps while a thread or another process works for it.

    tests/tools/jumps.py says what is seen of that, what not, and what the test does instead.
    """
    jumps = Jumps()
    jumps.install(monkeypatch)
    yield
    if jumps.found:
        pytest.fail("\n".join(jumps.found), pytrace=False)


@pytest.fixture
def threadless(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be done in a worker thread is done at once, so that a clock may jump: for tests of what comes when."""
    monkeypatch.setattr(trio.to_thread, "run_sync", run_at_once)
