from __future__ import annotations

import pytest

from proxy.check.readers.limits import soft_limit
from proxy.check.report import Unchecked
from proxy.demo import netns
from tests.check.ground import Ground, check, findings, names, seen
from tests.tools.process import Proxy

ONLY = ("limits",)

TEXT = """\
Limit                     Soft Limit           Hard Limit           Units
Max cpu time              unlimited            unlimited            seconds
Max open files            1024                 524288               files
"""


def limited(ground: Ground, hard: int) -> list[str]:
    return netns.inside(ground.here, ["prlimit", f"--nofile=1024:{hard}", "--"])


@pytest.mark.netns
def test_what_a_proxy_would_inherit(ground: Ground) -> None:
    config = ground.config(limits={"streams_per_link": 5000})
    found = findings(check(limited(ground, 1024), config))["few-descriptors"]
    assert found.level == "wrong"
    assert "a process started from here may open 1024 files" in found.read
    assert "limits.streams_per_link = 5000, takes 5066" in found.read
    assert found.mend.startswith("LimitNOFILE=5066 ")
    assert findings(check(limited(ground, 5065), config))["few-descriptors"].level == "note"
    assert "few-descriptors" not in findings(check(limited(ground, 5066), config))


@pytest.mark.netns
def test_without_a_configuration(ground: Ground) -> None:
    assert "few-descriptors" in names(check(limited(ground, 1024)))
    assert "may open 4096 files" in seen(check(limited(ground, 4096)))


@pytest.mark.netns
def test_a_running_proxy_counts_more_than_this_process(ground: Ground) -> None:
    folder = ground.folder / "proxy"
    folder.mkdir()
    config = ground.config(listen="127.0.0.1", limits={"streams_per_link": 5000}, log={"format": "json"})
    with Proxy(config.read_text(), folder) as proxy:
        netns.run(["prlimit", f"--pid={proxy.pid}", "--nofile=900:900"])
        found = findings(check(limited(ground, 20000), config))["few-descriptors"]
    assert f"the running proxy, process {proxy.pid}, may open 900 files (" in found.read


def test_the_file() -> None:
    assert soft_limit(TEXT) == 1024
    assert soft_limit(TEXT.replace("1024  ", "unlimited")) == 1 << 30
    assert soft_limit(Unchecked("/proc/1/limits", "no")) == Unchecked("descriptor limit of the running proxy", "no")
