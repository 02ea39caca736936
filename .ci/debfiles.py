""".ci/debfiles.py ROOT: what the package has beside /opt/hostlane, out of the source: units, completions, man."""

import gzip
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from click.shell_completion import get_completion_class
from click_man.core import write_man_pages

from control.cli.main import hostlane
from proxy.setup.service import PACKAGED, rendered

HOSTLANE = "/opt/hostlane/bin/hostlane"
CONFIGS = {"hostlane-control.service": "/etc/hostlane/control.yaml"}
SHELLS = {
    "bash": "usr/share/bash-completion/completions/hostlane",
    "zsh": "usr/share/zsh/vendor-completions/_hostlane",
    "fish": "usr/share/fish/vendor_completions.d/hostlane.fish",
}

root = Path(sys.argv[1])


def put(place: str, content: bytes) -> None:
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / place).write_bytes(content)


for name, place in PACKAGED.items():
    put(place, rendered(name, HOSTLANE, CONFIGS.get(name, "/etc/hostlane/hostlane.yaml")).encode())
for shell, place in SHELLS.items():
    kind = get_completion_class(shell)
    put(place, kind(hostlane, {}, "hostlane", "_HOSTLANE_COMPLETE").source().encode())
with TemporaryDirectory() as folder:
    write_man_pages("hostlane", hostlane, version="", target_dir=folder)
    for page in Path(folder).iterdir():
        put(f"usr/share/man/man1/{page.name}.gz", gzip.compress(page.read_bytes(), mtime=0))
