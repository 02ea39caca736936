from __future__ import annotations

import msgspec

from proxy.check.report import Finding, Level, Passed, Report, Unchecked, group, report


def finding(name: str, level: Level) -> Finding:
    return Finding(name=name, level=level, where="eth0", read="x = 1", cost="much", mend="x = 0")


def test_what_is_wrong_comes_first() -> None:
    lines = [Passed("a"), finding("n", "note"), Unchecked("b", "no"), finding("w", "wrong"), Passed("c")]
    made = group("g", "about", lines)
    assert [item.name for item in made.findings] == ["w", "n"]
    assert made.seen == ("a", "c")
    assert made.unseen == (Unchecked("b", "no"),)


def test_counts() -> None:
    groups = [group("g", "", [finding("w", "wrong"), finding("n", "note")]), group("h", "", [finding("n", "note")])]
    made = report(groups)
    assert (made.wrong, made.notes, len(made.groups)) == (1, 2, 2)
    assert msgspec.json.decode(msgspec.json.encode(made), type=Report) == made
