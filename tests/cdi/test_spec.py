from __future__ import annotations

import json

import pytest

from proxy.cdi import spec
from proxy.cdi.spec import HookCall


@pytest.mark.parametrize("strict", [False, True])
def test_what_is_written_is_read(strict: bool) -> None:
    call = HookCall("/etc/cdi/hostlane-hook", "/run/hostlane-cdi/hook.sock", strict)
    content = spec.write(call)
    assert spec.read(content) == call
    [device] = json.loads(content)["devices"]
    start, stop = device["containerEdits"]["hooks"]
    assert (start["hookName"], stop["hookName"]) == ("createRuntime", "poststop")
    assert start["args"] == ["hostlane-hook", "start", call.socket, *(["10", "strict"] if strict else ["2"])]
    assert stop["args"] == ["hostlane-hook", "stop", call.socket, "2"]


def test_a_device_without_hooks() -> None:
    content = spec.without_hooks()
    assert spec.read(content) is None
    [device] = json.loads(content)["devices"]
    assert f"{json.loads(content)['kind']}={device['name']}" == spec.DEVICE
    assert device["containerEdits"], "engines refuse a file with a device that changes nothing"


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"kind":"vendor/gpu","devices":[]}', b'{"kind":1}'])
def test_what_is_somebody_elses(content: bytes) -> None:
    with pytest.raises(ValueError, match="hostlane/door"):
        spec.read(content)
