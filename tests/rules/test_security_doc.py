"""docs/security.md shows commands and log lines: the commands work, and the lines are those that the code writes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from proxy.config import schema as config
from proxy.config.schema import TlsFiles
from proxy.links.credentials import RequiredIdentity, read

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "security.md").read_text()


def test_the_commands_make_what_a_host_needs(tmp_path: Path) -> None:
    (recipe,) = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path}
    subprocess.run(["sh", "-euc", recipe], cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=60)
    files = TlsFiles(certificate=f"{tmp_path}/host-a.pem", key=f"{tmp_path}/host-a.key", ca=f"{tmp_path}/ca.pem")
    found = read(files, RequiredIdentity("hostlane", "host-a"), time.time())
    assert found.not_after - time.time() == pytest.approx(30 * 86400, abs=60)
    assert Path(files.key).stat().st_mode & 0o077 == 0
    assert (tmp_path / "ca.key").stat().st_mode & 0o077 == 0


def test_the_configuration_is_one() -> None:
    (block,) = re.findall(r"```\n(mesh:.*?)```", TEXT, re.DOTALL)
    found = config.parse(f"host: host-a\n{block}", "security.md")
    assert found.links.security == "mtls"


def test_the_lines_of_refusals_are_tested_ones() -> None:
    table = TEXT.partition("## What a refusal looks like")[2].partition("\n## ")[0]
    lines = re.findall(r"`((?:the peer|host ')[^`]*)`", table)
    tests = (ROOT / "tests/links/test_tls.py").read_text() + (ROOT / "tests/system/test_tls.py").read_text()
    ends = [re.split(r"certificate is refused: |this host's certificate: |\.\.\.", line) for line in lines]
    assert len(lines) == 13
    missing = [part for parts in ends for part in parts[1:] or parts if part and part not in tests]
    assert missing == []
