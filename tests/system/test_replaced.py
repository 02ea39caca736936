"""Files that somebody replaces while the proxy runs."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.agent.reload import _REPLACED
from tests.system.world import hostlane
from tests.tools.process import Proxy
from tests.tools.sockets import free_port

pytestmark = [pytest.mark.netns, pytest.mark.failure("30")]


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="hl-"))
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize("editor", ["writes another file", "keeps a backup", "writes over", "changes nothing"])
def test_a_configuration_that_is_mounted_as_a_single_file(folder: Path, editor: str) -> None:
    """As a container sees it. What is written into the file is applied; a file in its place cannot be seen, and a
    reload says so instead of "nothing has changed"."""
    source = folder / "on-the-host.yaml"
    config: dict[str, Any] = {
        "host": "host-a",
        "run_dir": f"{folder}/run",
        "links": {"listen": f"127.0.0.1:{free_port()}", "security": "none"},
        "log": {"format": "json"},
    }
    source.write_text(json.dumps(config))
    proxy = Proxy(config, folder)
    mount = f"mount --bind {source} {proxy.file} && exec " + '"$@"'
    proxy.argv = ["unshare", "--mount", "sh", "-c", mount, "sh", *proxy.argv]
    with proxy:
        changed = json.dumps({**config, "peers": {"host-b": {"address": "127.0.0.2:7600"}}})
        match editor:
            case "writes another file":
                (folder / "new").write_text(changed)
                (folder / "new").replace(source)
            case "keeps a backup":
                source.rename(folder / "on-the-host.yaml~")
                source.write_text(changed)
            case "writes over":
                source.write_text(changed)
            case _:
                pass
        done = hostlane("reload", "--socket", f"{folder}/run/admin.sock")
    if editor in ("writes over", "changes nothing"):
        assert (done.returncode, done.stderr) == (0, "")
        assert ("peers" in done.stdout) == (editor == "writes over")
    else:
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"{proxy.file}: {_REPLACED}\n"
