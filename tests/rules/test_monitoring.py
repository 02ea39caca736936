"""Alerts and the dashboard ask for metrics and labels that there are."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from control.base.exposition import Family
from control.server import metrics as control
from proxy.telemetry.metrics import catalog

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "configs" / "prometheus" / "hostlane.rules.yml"
DASHBOARD = ROOT / "configs" / "grafana" / "hostlane.json"
FAMILIES = (*catalog.ALL, *control.ALL)
CLOSED = {**catalog.CLOSED, **control.CLOSED}
OF_PROMETHEUS = {"instance", "job"}
NAME = re.compile(r"\bhostlane_\w+")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


def names(family: Family) -> Iterator[str]:
    """What a query may call it."""
    if family.kind == "histogram":
        yield from (f"{family.name}_{part}" for part in ("bucket", "sum", "count"))
    else:
        yield family.full_name


BY_NAME = {name: family for family in FAMILIES for name in names(family)}


def problems(query: str) -> Iterator[str]:
    """What a query asks for that there is not."""
    found = [BY_NAME.get(name) for name in NAME.findall(query)]
    if not found:
        yield "no metric"
    for name in NAME.findall(query):
        if name not in BY_NAME:
            yield name
    labels = OF_PROMETHEUS.union(*(family.labels for family in found if family is not None))
    if "_bucket" in query:
        labels.add("le")
    asked = [
        label for group in re.findall(r"\b(?:by|without)\s*\(([^)]*)\)", query) for label in re.split(r"\W+", group)
    ]
    for label in filter(None, asked):
        if label not in labels:
            yield label
    for label, _, values in MATCHER.findall(query):
        if label not in labels | {"__name__"}:
            yield label
        for value in values.split("|") if label in CLOSED else ():
            if value not in CLOSED[label]:
                yield f"{label}={value}"
        if label == "le" and not any(float(values) in catalog.BOUNDS[family.name] for family in found if family):
            yield f"le={values}"


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_rules_ask_for_what_there_is(rule: dict[str, Any]) -> None:
    assert list(problems(rule["expr"])) == []
    found = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
    kept = set(re.split(r"\W+", " ".join(re.findall(r"by \(([^)]*)\)", rule["expr"]))))
    assert found <= kept


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_panels_ask_for_what_there_is(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        assert list(problems(target["expr"])) == []
        kept = set(re.split(r"\W+", " ".join(re.findall(r"by \(([^)]*)\)", target["expr"])))) | OF_PROMETHEUS
        assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= kept


def test_variables_ask_for_what_there_is() -> None:
    for variable in json.loads(DASHBOARD.read_text())["templating"]["list"]:
        if variable["type"] == "query":
            query = re.sub(r", \w+\)$", ")", variable["query"]["query"])
            assert list(problems(query)) == [], variable["name"]


def test_every_metric_is_in_the_dashboard() -> None:
    text = DASHBOARD.read_text()
    shown = {BY_NAME[name] for name in NAME.findall(text) if name in BY_NAME}
    own = ("cpu", "resident_memory", "descriptors_used", "descriptors_limit", "start_time", "certificate_expiry_time")
    left = {family.name for family in FAMILIES if family not in shown}
    left -= {family.name for family in control.ALL if family.name.removeprefix("hostlane_control_").startswith(own)}
    assert left <= {"hostlane_control_store_connected"}


def test_what_is_not_there_is_found() -> None:
    assert list(problems('sum by (uid) (hostlane_links{host="a"})')) == ["uid", "host"]
    assert list(problems("rate(hostlane_link[5m])")) == ["hostlane_link"]
    assert list(problems('hostlane_streams_ended_total{reason=~"finished|gone"}')) == ["reason=gone"]
    assert list(problems('hostlane_pump_turn_seconds_bucket{le="0.03"}')) == ["le=0.03"]
    assert list(problems("up")) == ["no metric"]


@pytest.mark.prometheus
def test_promtool_takes_the_rules() -> None:
    done = subprocess.run(["promtool", "check", "rules", RULES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules())} rules found" in done.stdout
