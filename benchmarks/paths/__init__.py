"""Every way from a client on host A to the server on host B."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.options import OtherBuild
from benchmarks.paths.base import BenchPath, Variant
from benchmarks.paths.containers import HostlaneInside, HostlaneSidecar
from benchmarks.paths.direct import Bridge, Direct
from benchmarks.paths.envoy import EnvoyH2, EnvoyH2Mtls, EnvoyTcp
from benchmarks.paths.floor import Floor
from benchmarks.paths.haproxy import HAProxy, HAProxyMtls
from benchmarks.paths.hostlane import (
    Hostlane,
    HostlaneMtls,
    HostlaneNoPoll,
    HostlaneOtherBuild,
    HostlaneOtherBuildMtls,
    HostlaneScraped,
    HostlaneScrapedMtls,
    HostlaneUnretained,
)
from benchmarks.testbed import Testbed

__all__ = ["BenchPath", "Variant", "make"]

_CLASSES: dict[str, type[BenchPath]] = {
    "direct": Direct,
    "bridge": Bridge,
    "haproxy": HAProxy,
    "envoy-tcp": EnvoyTcp,
    "envoy-h2": EnvoyH2,
    "hostlane": Hostlane,
    "hostlane-no-poll": HostlaneNoPoll,
    "floor": Floor,
    "haproxy-mtls": HAProxyMtls,
    "envoy-h2-mtls": EnvoyH2Mtls,
    "hostlane-mtls": HostlaneMtls,
    "hostlane-inside": HostlaneInside,
    "hostlane-sidecar": HostlaneSidecar,
    "hostlane-unretained": HostlaneUnretained,
    "hostlane-scraped": HostlaneScraped,
    "hostlane-scraped-mtls": HostlaneScrapedMtls,
}


def make(name: str, bed: Testbed, builds: Sequence[OtherBuild] = ()) -> BenchPath:
    """The path of that name (options.PATHS, or one of the builds); nothing of it runs yet."""
    for number, build in enumerate(builds):
        if name == build.name:
            return HostlaneOtherBuild(build, number, bed)
        if name == build.mtls_name:
            return HostlaneOtherBuildMtls(build, number, bed)
    return _CLASSES[name](name, bed)
