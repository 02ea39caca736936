"""Hosts as their users have them: Docker is installed, its engine runs with the paths that it has by default, and
`docker` talks to it at /var/run/docker.sock. Each host has /usr, /run, /etc, /var and /root of its own, in memory, and
a name.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from proxy.demo import netns
from proxy.demo.lab import CABLE, Lab, LabHost
from tests.docker.engines import EngineHost
from tests.docker.programs import ROOT, engine, run

INTERFACE = "eth0"
"""What joins the hosts."""
CLONE = "/root/hostlane"
SETUP = """
set -e
cgroups=$(mktemp -d); mount --rbind /sys/fs/cgroup "$cgroups"
mount -t sysfs sysfs /sys; mount --rbind "$cgroups" /sys/fs/cgroup; umount -l "$cgroups"; rmdir "$cgroups"
mount -t tmpfs tmpfs "$1"
mount -t overlay overlay -o "lowerdir=$2/usr:/usr" /usr
for each in etc var opt root; do
  mkdir "$1/$each" "$1/$each.work"
  mount -t overlay overlay -o "lowerdir=/$each,upperdir=$1/$each,workdir=$1/$each.work" "/$each"
done
mount -t tmpfs tmpfs /run
rm -rf /root/.docker /etc/docker
mkdir -p /etc/docker /var/lib/docker "$5"
mount -t tmpfs tmpfs /var/lib/docker
printf '{"cgroup-parent": "/%s"}' "$4" > /etc/docker/daemon.json
hostname "$3"
mount --make-rshared /
exec sleep infinity
"""
"""/var/run is a link to /run. An engine makes no overlay on another one. `/` is shared, as it is under systemd."""


class BareHost(EngineHost):
    """One host, with nothing on it but Docker and a clone of this repository. Its interface is `INTERFACE`."""

    def __init__(self, host: LabHost, folder: Path) -> None:
        for name, *words in ((CABLE, "down"), (CABLE, "name", INTERFACE), (INTERFACE, "up")):
            netns.run(["ip", "-n", host.netns, "link", "set", name, *words])
        self._name = host.name
        super().__init__(host, folder, (), programs=engine())
        self._clone()

    def _setup(self) -> list[str]:
        return [SETUP, "sh", str(self.state), str(engine()), self._name, self._cgroup, CLONE]

    def _command(self, live_restore: bool) -> list[str]:
        return ["dockerd", "--log-level=error", *(["--live-restore"] if live_restore else [])]

    def client(self) -> list[str]:
        return self.inside(["env", "--unset=DOCKER_CONFIG", "HOME=/root", "docker"])

    def types(self, line: str, *, limit: float = 300, cwd: str = CLONE) -> subprocess.CompletedProcess[str]:
        """What becomes of a line that root types in the clone; both outputs as one. `limit`: seconds."""
        enter = self.inside(["env", "--ignore-environment", "HOME=/root", f"PATH={PATH}", "bash", "-c"])
        return subprocess.run(
            [*enter, 'cd "$0" && eval "$1"', cwd, line],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, timeout=limit,
            check=False,
        )  # fmt: skip

    def _clone(self) -> None:
        """What git knows, or would be told of, as it lies here now."""
        names = run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT).split("\0")
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as tar:
            for name in sorted({name for name in names if (ROOT / name).is_file()}):
                tar.add(ROOT / name, name)
        subprocess.run(self.inside(["tar", "-xC", CLONE]), input=content.getvalue(), check=True)


PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def import_programs(host: EngineHost, name: str, programs: Sequence[str], folders: Sequence[str] = ()) -> None:
    """Make an image of programs of this machine, with what they are linked to and empty folders."""
    libraries = {
        word for program in programs for word in run(["ldd", str(shutil.which(program))]).split() if word[0] == "/"
    }
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", dereference=True) as tar:
        for folder in folders:
            made = tarfile.TarInfo(folder.strip("/"))
            made.type, made.mode = tarfile.DIRTYPE, 0o1777
            tar.addfile(made)
        for program in programs:
            tar.add(str(shutil.which(program)), f"usr/bin/{program}")
        for library in libraries:
            tar.add(library, library.strip("/"))
    argv = [*host.client(), "import", "--change", "ENV PATH=/usr/bin", "-", name]
    subprocess.run(argv, env=host.environment, input=content.getvalue(), check=True, capture_output=True)


@contextmanager
def bare_hosts() -> Iterator[tuple[BareHost, BareHost]]:
    """Two hosts that are joined by a cable."""
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(interfaces=False))
        folder = Path(tempfile.mkdtemp(prefix="hl-bare-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        made = []
        for host in lab.hosts:
            made.append(BareHost(host, folder / host.name[-1]))
            stack.callback(made[-1].close)
        yield made[0], made[1]
