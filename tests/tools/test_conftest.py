"""Where all tests were promised to run, a skip is a failure; and so is a run with another core than was promised."""

from __future__ import annotations

import pytest

from proxy.core import finder
from tests import conftest


def judged(report: pytest.TestReport) -> pytest.TestReport:
    hook = conftest.pytest_runtest_makereport()
    next(hook)
    with pytest.raises(StopIteration) as stopped:
        hook.send(report)
    result = stopped.value.value
    assert isinstance(result, pytest.TestReport)
    return result


def skipped() -> pytest.TestReport:
    return pytest.TestReport(
        "tests/test_x.py::test",
        ("tests/test_x.py", 1, "test"),
        {},
        "skipped",
        ("x.py", 1, "Skipped: no ss here"),
        "call",
    )


@pytest.mark.parametrize("required", [True, False])
def test_a_skip(required: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conftest, "REQUIRED", required)
    report = judged(skipped())
    assert report.failed == required
    if required:
        assert report.longrepr == "HOSTLANE_REQUIRE_NETNS=1, but: no ss here"


def test_what_is_expected_to_fail_is_no_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conftest, "REQUIRED", True)
    report = skipped()
    report.wasxfail = "reason"
    assert judged(report).skipped


def test_a_run_is_what_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = finder.core()
    other = "python" if runs == "compiled" else "compiled"
    assert conftest.pytest_report_header() == f"core: {runs}"
    for promised in ("", runs):
        monkeypatch.setattr(conftest, "REQUIRED_CORE", promised)
        conftest.pytest_configure()
    monkeypatch.setattr(conftest, "REQUIRED_CORE", other)
    with pytest.raises(pytest.UsageError, match=f"HOSTLANE_REQUIRE_CORE={other}, but the core would run as {runs}"):
        conftest.pytest_configure()
