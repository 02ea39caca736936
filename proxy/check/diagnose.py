"""The subjects of a diagnosis in their order. Each has a reader of facts and rules for them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeVar

from proxy.check.context import DiagnosisContext, look
from proxy.check.readers import clock as clock_reader
from proxy.check.readers import containers as containers_reader
from proxy.check.readers import hardware as hardware_reader
from proxy.check.readers import limits as limits_reader
from proxy.check.readers import memory as memory_reader
from proxy.check.readers import modules as modules_reader
from proxy.check.readers import mtu as mtu_reader
from proxy.check.readers import netfilter as netfilter_reader
from proxy.check.readers import path as path_reader
from proxy.check.readers import proxy as proxy_reader
from proxy.check.readers import segment as segment_reader
from proxy.check.readers import sockets as sockets_reader
from proxy.check.readers import sysctls as sysctls_reader
from proxy.check.report import Line, Report, SubjectReport, group, report
from proxy.check.rules import (
    clock,
    containers,
    hardware,
    limits,
    memory,
    modules,
    mtu,
    netfilter,
    path,
    proxy,
    segment,
    sockets,
    sysctls,
)
from proxy.config.schema import Config

F = TypeVar("F")
Look = Callable[[DiagnosisContext], SubjectReport]


def _subject(
    name: str, about: str, read: Callable[[DiagnosisContext], F], judge: Callable[[F], Iterable[Line]]
) -> tuple[str, Look]:
    return name, lambda context: group(name, about, judge(read(context)))


SUBJECTS: tuple[tuple[str, Look], ...] = (
    _subject("path", "the way to each peer", path_reader.read, path.judge),
    _subject("netfilter", "connection tracking, NAT and rules on the way", netfilter_reader.read, netfilter.judge),
    _subject("modules", "kernel modules without a use", modules_reader.read, modules.judge),
    _subject("mtu", "the largest packet that gets to each peer", mtu_reader.read, mtu.judge),
    _subject("segment", "addresses that exist twice", segment_reader.read, segment.judge),
    _subject("hardware", "offloads, SR-IOV, IOMMU", hardware_reader.read, hardware.judge),
    _subject("sysctls", "kernel settings that hurt pooled links", sysctls_reader.read, sysctls.judge),
    _subject("clock", "this machine's clock against certificates", clock_reader.read, clock.judge),
    _subject("limits", "descriptors against streams", limits_reader.read, limits.judge),
    _subject("memory", "limits.memory against the limit of the cgroup", memory_reader.read, memory.judge),
    _subject("proxy", "what the running proxy says of itself", proxy_reader.read, proxy.judge),
    _subject("sockets", "directories of Unix sockets", sockets_reader.read, sockets.judge),
    _subject("containers", "containers that call by labels", containers_reader.read, containers.judge),
)


def diagnose(config: Config | None, certificates: Sequence[str] = (), only: Collection[str] = ()) -> Report:
    """Look at this host and at the ways to its peers.

    Takes a few seconds where a peer does not answer. Raises NetError when the kernel shows no interfaces.

    Args:
        certificates: PEM files to hold against the clock.
        only: names of `SUBJECTS`; none: all.
    """
    context = look(config, tuple(certificates))
    return report(look_into(context) for name, look_into in SUBJECTS if not only or name in only)
