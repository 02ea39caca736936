from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from proxy.demo import netns
from proxy.demo.mesh import HOSTLANE
from tests.check.ground import Ground

pytestmark = pytest.mark.netns


def run(ground: Ground, *words: str | Path) -> subprocess.CompletedProcess[str]:
    argv = netns.inside(ground.here, [*HOSTLANE, "check", *map(str, words)])
    return subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False)


def test_nothing_wrong(ground: Ground) -> None:
    done = run(ground, "--config", ground.config())
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "path: the way to each peer"
    assert lines[-1].startswith("nothing wrong, ")


def test_something_wrong(ground: Ground) -> None:
    config = ground.config(listen="10.77.0.9")
    done = run(ground, "--config", config)
    assert (done.returncode, done.stderr) == (1, "")
    assert "  wrong     no-link-address: links.listen\n" in done.stdout
    done = run(ground, "--config", config, "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["wrong"] == 1
    assert report["groups"][0]["findings"][0]["name"] == "no-link-address"


def test_one_group(ground: Ground) -> None:
    done = run(ground, "--config", ground.config(listen="10.77.0.9"), "--only", "mtu", "--only", "sockets", "--json")
    assert [group["name"] for group in json.loads(done.stdout)["groups"]] == ["mtu", "sockets"]
    assert done.returncode == 0, "what is wrong is in another group"


def test_a_wrong_configuration(ground: Ground) -> None:
    bad = ground.folder / "bad.yaml"
    bad.write_text("host: A\n")
    done = run(ground, "--config", bad)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{bad}:")
    assert "Traceback" not in done.stderr
    done = run(ground, "--config", ground.folder / "missing.yaml")
    assert done.returncode == 2
    assert done.stderr == f"{ground.folder}/missing.yaml: no such file\n"


def test_wrong_usage(ground: Ground) -> None:
    assert run(ground, "--jsom").returncode == 2
    done = run(ground, "--only", "mtu", "--only", "paths")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--only paths: found no such group; allowed: path, netfilter, " in done.stderr
    for wrong in ("/no-such-file", "/tmp"):
        done = run(ground, "--certificate", wrong)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"Invalid value for '--certificate': File '{wrong}'" in done.stderr


@pytest.mark.failure("32")
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_every_terminal(ground: Ground, encoding: str) -> None:
    file = ground.folder / "schl\u00fcssel-\u9375.pem"
    file.write_text("nothing")
    argv = netns.inside(ground.here, [*HOSTLANE, "check", "--only", "clock", "--certificate", str(file)])
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(argv, capture_output=True, timeout=100, check=False, env=environment)
    assert done.stderr == b""
    name = file.name if encoding == "utf-8" else "schl\u00fcssel-\\u9375.pem"
    assert name.encode(encoding, "backslashreplace") in done.stdout
