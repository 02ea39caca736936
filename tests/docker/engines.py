"""Two hosts with a real Docker engine each, in network namespaces; nothing of this machine's own is touched.

Each engine has a mount namespace of its own, where its state is a tmpfs, so that all of it goes with the namespace. No
image is pulled: the one that there is holds nothing but links into /usr, which every container has mounted from this
machine, read-only. So the services are Debian's packages, unmodified, and so is the Python that Hostlane runs with.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from proxy.demo import lab as labs
from proxy.demo.lab import Lab, LabHost
from proxy.demo.mesh import HOSTLANE
from tests.tools.process import entry_of
from tests.tools.sockets import PATIENCE, eventually

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = {"dockerd": "docker.io", "docker": "docker.io", "containerd": "containerd", "redis-server": "redis-server"}
IMAGE = "hostlane-tests"
NO_NETWORK = ("--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false")
PROXY_USER = "7600:7600"
OFFERED = ["redis", "other", "postgresql", "web", *(f"s{number}" for number in range(4))]
"""Services that either host may call at the other one."""
FILES = {"redis": "redis.sock", "web": "web.sock", "postgresql": ".s.PGSQL.5432"}
"""Unix sockets of services."""
SERVICES = "/run/hostlane-services"
"""Where containers have the sockets that serve."""
SETUP = """
set -e
if [ "$2" = other ]; then
  cgroups=$(mktemp -d); mount --rbind /sys/fs/cgroup "$cgroups"
  mount -t sysfs sysfs /sys; mount --rbind "$cgroups" /sys/fs/cgroup; umount -l "$cgroups"; rmdir "$cgroups"
fi
mount -t tmpfs tmpfs "$1"
mount --make-rshared /
exec sleep infinity
"""
"""The engine's namespaces stay when it is killed. /sys shows one network: that of whoever mounts it."""


def missing() -> str | None:
    """Why there can be no engines here, in one line; None: there can."""
    if (why := labs.missing()) is not None:
        return why
    for program, package in PROGRAMS.items():
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None:
            return f"{program} is not installed (Debian: apt-get install {package})"
    return None


class EngineHost:
    """One host and its engine. `files` is a directory that containers may have mounted.

    Args:
        host: its network; None: this machine's own, of which nothing is changed.
        folder: short; the engine's socket is in it.
        network: the engine's options for its own networks; None: it has none, and makes no rules.
        programs: a folder with /usr of another engine (`tests.docker.programs`); None: the one that is installed.
        settings: what its daemon.json says.
    """

    def __init__(
        self,
        host: LabHost | None,
        folder: Path,
        network: Sequence[str] | None = None,
        *,
        programs: Path | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._settings = settings or {}
        self.host, self.files = host, folder / "files"
        own = [] if programs is None else [f"{programs}/usr/sbin", f"{programs}/usr/bin"]
        path = os.pathsep.join([*own, os.environ["PATH"], "/usr/sbin", "/sbin"])
        self.environment = {**os.environ, "PATH": path, "DOCKER_CONFIG": str(folder)}
        self._storage = "vfs" if programs is None else "overlay2"
        self.state, self.sockets = folder / "state", folder / "sockets"
        for made in (self.files, self.state, self.sockets):
            made.mkdir(parents=True)
        self._cgroup = f"{folder.parent.name}-{folder.name}"
        own_net = "/proc/self/ns/net" if host is None else f"/run/netns/{host.netns}"
        enter = ["nsenter", f"--net={own_net}", "unshare", "--mount", "--uts", "--propagation", "private"]
        self._holder = subprocess.Popen([*enter, "sh", "-c", *self._setup()], start_new_session=True)
        eventually(self._entered, "the engine's namespaces")
        self._engine: subprocess.Popen[bytes] | None = None
        self._network = NO_NETWORK if network is None else network
        self.start()
        self.import_image()

    def _setup(self) -> list[str]:
        """The script that makes the namespaces, and its arguments."""
        return [SETUP, "sh", str(self.state), "own" if self.host is None else "other"]

    def _entered(self) -> bool:
        return Path(f"/proc/{self._holder.pid}/comm").read_text().strip() == "sleep"

    def start(self, *, live_restore: bool = True) -> None:
        """Start the engine, and wait until it answers. `live_restore`: containers will live on when it ends."""
        (self.files.parent / "daemon.json").write_text(json.dumps(self._settings))
        with (self.files.parent / "engine.log").open("ab") as log:
            self._engine = subprocess.Popen(
                self.inside(self._command(live_restore)), stdout=log, stderr=log, start_new_session=True,
                env=self.environment,
            )  # fmt: skip
        eventually(lambda: self._docker("version").returncode == 0, "the engine")

    def _command(self, live_restore: bool) -> list[str]:
        """The engine's command line."""
        return [
            "dockerd", "--data-root", f"{self.state}/data", "--exec-root", f"{self.state}/exec", "--pidfile",
            f"{self.state}/pid", "--host", f"unix://{self.sockets}/docker.sock", "--storage-driver", self._storage,
            *self._network, "--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", f"/{self._cgroup}",
            f"--live-restore={'true' if live_restore else 'false'}", "--log-level", "error",
            "--config-file", str(self.files.parent / "daemon.json"),
        ]  # fmt: skip

    def inside(self, argv: list[str]) -> list[str]:
        """The command, in this host's network and with what its engine has mounted."""
        return ["nsenter", f"--target={self._holder.pid}", "--mount", "--net", "--uts", "--", *argv]

    def host_run(self, *argv: str) -> str:
        """What a command says on this host; AssertionError if it fails."""
        done = subprocess.run(self.inside([*argv]), capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, f"{' '.join(argv)}: {done.stdout}{done.stderr}"
        return done.stdout

    def seen(self, path: str) -> Path:
        """A path below the engine's state, which lies in a mount namespace of its own, as it is reached from here."""
        return Path(f"/proc/{self._holder.pid}/root{self.state}", path)

    def says(self, name: str, *argv: str) -> str:
        """What a command in a container says; empty: it has failed, or does not end."""
        with suppress(subprocess.TimeoutExpired):
            return self._docker("exec", name, "timeout", "5", *argv).stdout.strip()
        return ""

    def stop(self) -> None:
        """End the engine; its containers live on (live-restore)."""
        assert self._engine is not None
        self._engine.terminate()
        self._engine.wait(PATIENCE)

    def kill(self) -> None:
        """End the engine as a crash does (kill -9); its containers live on."""
        assert self._engine is not None
        pid_file = self.seen("exec/containerd/containerd.pid")
        containerd = pid_file.read_text()
        self._engine.kill()
        self._engine.wait(PATIENCE)
        # It dies with the engine, which does not come back while it finds that process: not every machine's first
        # process sees to those that have ended.
        eventually(lambda: _over(containerd), "the end of containerd")
        pid_file.unlink()

    def docker(self, *words: str, limit: float = 120) -> str:
        """What the client says on standard output; AssertionError if it fails. ``limit``: seconds."""
        done = self._docker(*words, limit=limit)
        assert done.returncode == 0, f"docker {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def manages(self, *words: str) -> bool:
        """Whether the client's command is carried out."""
        return self._docker(*words).returncode == 0

    def _docker(self, *words: str, limit: float = 120) -> subprocess.CompletedProcess[str]:
        argv = [*self.client(), *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=limit, env=self.environment, check=False)

    def client(self) -> list[str]:
        """How Docker's client is called."""
        return ["docker", "--host", f"unix://{self.sockets}/docker.sock"]

    def import_image(self) -> None:
        """Make the image."""
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as tar:
            for name in ("bin", "sbin", "lib", "lib64"):
                link = tarfile.TarInfo(name)
                link.type, link.linkname = tarfile.SYMTYPE, f"usr/{name}"
                tar.addfile(link)
            for name in ("usr", "etc", "tmp", "run", "var", "root"):
                folder = tarfile.TarInfo(name)
                folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
                tar.addfile(folder)
        argv = [*self.client(), "import", "-", IMAGE]
        subprocess.run(argv, env=self.environment, input=content.getvalue(), check=True, capture_output=True)

    def run(self, name: str, argv: list[str], *options: str, labels: Mapping[str, str] | None = None) -> str:
        """Start a container that has no network, no capability and no file that it may write."""
        return self.docker("run", "--detach", *self._words(name, argv, options, labels or {}))

    def create(self, name: str, argv: list[str], *options: str, labels: Mapping[str, str] | None = None) -> str:
        """The same, without a start."""
        return self.docker("create", *self._words(name, argv, options, labels or {}))

    def _words(self, name: str, argv: list[str], options: Sequence[str], labels: Mapping[str, str]) -> list[str]:
        given = [f"{key}={value}" for key, value in labels.items()]
        words = [f"--label={label}" for label in given]
        if not any(option.startswith("--network") for option in options):
            words.append("--network=none")
        return [
            f"--name={name}", "--cap-drop=ALL", "--read-only", "--volume=/usr:/usr:ro",
            "--volume=/etc/ld.so.cache:/etc/ld.so.cache:ro",
            *words, *options, IMAGE, *argv,
        ]  # fmt: skip

    def hostlane(self, name: str, command: str, *options: str) -> None:
        """Start a container with this checkout's Hostlane."""
        mounts = {str(ROOT), sys.prefix, sys.base_prefix, str(self.files)} - {"/usr"}
        self.run(
            name, [*HOSTLANE, command, "--config", f"{self.files}/host.yaml"],
            *(f"--volume={path}:{path}:ro" for path in mounts), f"--workdir={ROOT}",
            f"--volume={self.sockets}/door:/run/hostlane-door", "--env=HOSTLANE_PURE", *options,
        )  # fmt: skip

    def start_door(self) -> None:
        """The door, with what docs/containers.md says that it needs and nothing else."""
        self.hostlane(
            "door", "door", "--user=0:7600", "--cap-add=SYS_ADMIN", "--cap-add=NET_BIND_SERVICE",
            f"--volume={self.sockets}:/run/engine:ro", f"--volume={self.state}/exec/netns:/run/docker/netns:ro,rslave",
        )  # fmt: skip

    def start_proxy(self) -> None:
        """The proxy, in the host's network, as a user of its own and without a capability."""
        self.hostlane(
            "proxy", "proxy", f"--user={PROXY_USER}", "--network=host", f"--volume={self.sockets}/run:/run/hostlane",
            f"--volume={self.sockets}/services:{SERVICES}",
        )  # fmt: skip

    def log(self, name: str) -> list[dict[str, Any]]:
        """What a container has logged."""
        done = self._docker("logs", name)
        return [entry_of(line) for line in f"{done.stdout}{done.stderr}".splitlines()]

    def said(self, name: str, event: str, **fields: Any) -> bool:
        """Whether a container has logged that."""
        wanted = {"event": event, **fields}
        return any(wanted.items() <= entry.items() for entry in self.log(name))

    def close(self) -> None:
        """End everything."""
        if self._engine is not None and self._engine.poll() is None:
            if ids := self._docker("ps", "--all", "--quiet").stdout.split():
                self._docker("rm", "--force", *ids)
            self.stop()
        # What an engine that was killed, or does not come back, has left: its containerd, their shims, and containers.
        mounts = os.readlink(f"/proc/{self._holder.pid}/ns/mnt")
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdecimal() and os.readlink(entry / "ns/mnt") == mounts:
                    os.kill(int(entry.name), 9)
        self._holder.kill()
        self._holder.wait()
        eventually(self._no_cgroups, "the end of the containers")

    def _no_cgroups(self) -> bool:
        """Kill whatever is left in the containers' cgroups, and remove those that are empty. Whether none is left."""
        tops = [Path(root, self._cgroup) for root in ("/sys/fs/cgroup", *Path("/sys/fs/cgroup").iterdir())]
        for top in tops:
            for folder in sorted([each for each in top.rglob("*") if each.is_dir()] + [top], reverse=True):
                with suppress(OSError):
                    for pid in (folder / "cgroup.procs").read_text().split():
                        os.kill(int(pid), 9)
                    folder.rmdir()
        return not any(top.is_dir() for top in tops)


def _over(pid: str) -> bool:
    """Whether a process has ended, be it that nobody has asked for its exit code yet."""
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@contextmanager
def two_hosts() -> Iterator[tuple[EngineHost, EngineHost]]:
    """Two hosts, each with engine, door and proxy, of a static mesh: both may call what the other one offers."""
    with ExitStack() as stack:
        lab = stack.enter_context(Lab())
        folder = Path(tempfile.mkdtemp(prefix="hl-docker-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        hosts = []
        for host, peer in ((lab.a, lab.b), (lab.b, lab.a)):
            made = EngineHost(host, folder / host.name[-1])
            stack.callback(made.close)
            hosts.append(made)
            config = {
                "host": host.name,
                "links": {"listen": f"{host.address}:7600", "security": "none"},
                "limits": {"open_timeout": "60s"},  # a loaded machine takes long to start what callers wait for
                "peers": {peer.name: {"address": f"{peer.address}:7600", "services": OFFERED}},
                "upstreams": {
                    service: {"listen": f"unix:{SERVICES}/{file}", "mode": "0666"} for service, file in FILES.items()
                },
                "connect": {"listen": f"unix:{SERVICES}/connect.sock", "services": "all", "mode": "0666"},
                "door": {"engine": "/run/engine/docker.sock"},
            }
            (made.files / "host.yaml").write_text(json.dumps(config))
            for name, mode, uid in (("door", 0o750, 0), ("run", 0o700, 7600), ("services", 0o755, 7600)):
                (made.sockets / name).mkdir(mode=mode)
                os.chown(made.sockets / name, uid, 7600)
            # The engine makes it with the first container, and the door has it mounted.
            subprocess.run(made.inside(["mkdir", "-p", f"{made.state}/exec/netns"]), check=True)
            made.start_door()
            made.start_proxy()
        for made in hosts:
            try:
                eventually(lambda made=made: made.said("proxy", "at the door"), "door and proxy")
            except AssertionError as error:
                raise AssertionError(f"{made.log('door')}\n{made.log('proxy')}") from error
        yield hosts[0], hosts[1]
