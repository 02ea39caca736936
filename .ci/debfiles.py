""".ci/debfiles.py ROOT: what the package has beside /opt/hostlane, out of the source: units, completions, man."""

import gzip
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from click.shell_completion import get_completion_class
from click_man.core import write_man_pages

from control.base.system.systemd import place, rendered
from control.cli.daemon import CONTROL
from control.cli.main import hostlane
from proxy.setup.daemon import PROXY

HOSTLANE = "/opt/hostlane/bin/hostlane"
SHELLS = {
    "bash": "usr/share/bash-completion/completions/hostlane",
    "zsh": "usr/share/zsh/vendor-completions/_hostlane",
    "fish": "usr/share/fish/vendor_completions.d/hostlane.fish",
}

root = Path(sys.argv[1])


def put(at: str, content: bytes) -> None:
    (root / at).parent.mkdir(parents=True, exist_ok=True)
    (root / at).write_bytes(content)


for daemon in (PROXY, CONTROL):
    for name in daemon.files:
        put(place(name, packaged=True), rendered(daemon, name, HOSTLANE, daemon.config).encode())
for shell, at in SHELLS.items():
    kind = get_completion_class(shell)
    put(at, kind(hostlane, {}, "hostlane", "_HOSTLANE_COMPLETE").source().encode())
with TemporaryDirectory() as folder:
    write_man_pages("hostlane", hostlane, version="", target_dir=folder)
    for page in Path(folder).iterdir():
        put(f"usr/share/man/man1/{page.name}.gz", gzip.compress(page.read_bytes(), mtime=0))
