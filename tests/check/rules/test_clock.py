from __future__ import annotations

import pytest

from proxy.check.report import Finding, Unchecked
from proxy.check.rules.clock import CertificateValidity, ClockFacts, judge
from tests.check.rules.lines import findings, only, seen, unseen

CERTIFICATE = CertificateValidity(file="host.pem", not_before=1000.0, not_after=2000.0)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (999.9, [("clock-behind", "wrong")]),
        (1000.0, []),
        (1750.0, []),
        (1750.1, [("late-renewal", "note")]),
        (2000.0, [("late-renewal", "note")]),
        (2000.1, [("expired-certificate", "wrong")]),
    ],
)
def test_the_life_of_a_certificate(now: float, expected: list[tuple[str, str]]) -> None:
    assert findings(judge(ClockFacts(now=now, certificates=(CERTIFICATE,)))) == expected


@pytest.mark.parametrize(
    ("now", "span"), [(990.0, "10 s"), (1000.0 - 7200, "2 h"), (1000.0 - 600, "10 min"), (1000.0 - 5 * 86400, "5 d")]
)
def test_spans(now: float, span: str) -> None:
    read = only(judge(ClockFacts(now=now, certificates=(CERTIFICATE,)))).read
    assert read == f"by this machine's clock the certificate begins in {span}"


@pytest.mark.parametrize(
    ("ahead", "expected"),
    [
        (13 * 3600.0, [("clocks-differ", "wrong")]),
        (-3600.0, [("clocks-differ", "wrong")]),
        (100.0, [("clocks-differ", "note")]),
        (-100.0, [("clocks-differ", "note")]),
        (-59.0, []),
        (4.0, []),
    ],
)
def test_the_control_servers_clock(ahead: float, expected: list[tuple[str, str]]) -> None:
    lines = list(judge(ClockFacts(now=1500.0, certificates=(CERTIFICATE,), ahead=ahead)))
    assert findings(lines) == expected
    assert ("the clock agrees with the control server's" in seen(lines)) == (not expected)
    for line in lines:
        if isinstance(line, Finding):
            assert ("ahead of" in line.read) == (ahead > 0)


def test_a_renewal_that_fails() -> None:
    found = only(judge(ClockFacts(now=1500.0, certificates=(CERTIFICATE,), renewal_error="no answer")))
    assert (found.name, found.level) == ("renewal-fails", "wrong")
    assert found.read.endswith("failed: no answer")


def test_what_cannot_be_read() -> None:
    lines = list(judge(ClockFacts(now=0.0, certificates=(Unchecked("host.pem", "no permission"),))))
    assert unseen(lines) == ["host.pem"]


def test_no_certificate_and_a_clock_that_drifts() -> None:
    lines = list(judge(ClockFacts(now=0.0, synchronised=False)))
    assert findings(lines) == [("clock-adrift", "note")]
    assert unseen(lines) == ["the clock against certificates"]
    assert seen(judge(ClockFacts(now=0.0))) == ["the clock is kept in time"]
