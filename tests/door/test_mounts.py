"""Copies of namespaces in mounts."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from proxy.config.schema import parse
from proxy.door import mounts
from proxy.door.mounts import copies

ROOT = "1 0 259:1 / / rw,relatime shared:1 - ext4 /dev/vda rw"
OWN = "40 1 0:4 net:[4026532001] /run/docker/netns/one rw master:7 - nsfs nsfs rw"
COPY = "41 1 0:4 net:[4026532001] /run/engine/docker/netns/one rw - nsfs nsfs rw"


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([], []),
        ([ROOT, OWN], []),
        ([ROOT, OWN, COPY], ["/run/engine/docker/netns/one"]),
        ([COPY, COPY.replace("one", "two")], ["/run/engine/docker/netns/one", "/run/engine/docker/netns/two"]),
        ([COPY.replace("rw -", "rw master:7 -")], []),
        ([COPY.replace("rw -", "rw shared:3 master:7 -")], []),
        ([COPY.replace("/run/engine/", "/run/engines/")], []),
        ([COPY.replace("nsfs nsfs", "tmpfs tmpfs")], []),
    ],
)
def test_what_follows_no_other_mount(lines: list[str], found: list[str]) -> None:
    assert list(copies("\n".join(lines), "/run/engine", "/run/docker/netns")) == found


@pytest.mark.parametrize("private", [True, False])
def test_without_a_container_the_engines_own_are_no_copies(private: bool) -> None:
    """Also where `/` is private: the door's directory of namespaces lies below that of the socket."""
    line = OWN.replace(" master:7", "" if private else " shared:7")
    assert list(copies(line, "/run", "/run/docker/netns")) == []


def test_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse(
        "host: a\nlinks: {listen: 127.0.0.1:7600, security: none}\ndoor: {engine: /run/engine/docker.sock}\n", "f"
    )
    assert config.door is not None
    file = tmp_path / "mountinfo"
    monkeypatch.setattr(mounts, "MOUNTS", str(file))
    with capture_logs() as logs:
        mounts.warn(config.door)
        file.write_text(ROOT)
        mounts.warn(config.door)
        assert logs == []
        file.write_text(f"{COPY}\n{COPY}\n")
        mounts.warn(config.door)
    [line] = logs
    assert (line["directory"], line["mounts"]) == ("/run/engine", 2)
    assert "rslave" in line["mend"]
