"""This machine's clock against the certificates that it must live with. Times are seconds since 1970."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from control.api.identity import BACKDATED
from control.api.messages import CLOCKS_DIFFER
from proxy.check.report import Finding, Line, Passed, Unchecked

RENEWAL = 0.75
"""Of a certificate's life. They renew at half of it; one that is so old was not renewed although there was time."""


class CertificateValidity(Struct, frozen=True, kw_only=True):
    """The time for which a certificate is valid."""

    file: str
    not_before: float
    not_after: float


class ClockFacts(Struct, frozen=True, kw_only=True):
    """This machine's time, and the certificates it must be right for. ``synchronised``: whether the kernel says that
    something keeps its clock right. ``renewal_error``, ``ahead``: `Discovery.renewal_error` and `clock_ahead_s`.
    """

    now: float
    certificates: tuple[CertificateValidity | Unchecked, ...] = ()
    synchronised: bool = True
    renewal_error: str | None = None
    ahead: float | None = None


def judge(facts: ClockFacts) -> Iterator[Line]:
    """All lines about the clock."""
    yield Passed("the clock is kept in time") if facts.synchronised else _adrift()
    if facts.renewal_error is not None:
        yield _not_renewed(facts.renewal_error)
    if facts.ahead is not None:
        yield _compared(facts.ahead)
    for item in facts.certificates:
        yield item if isinstance(item, Unchecked) else _certificate(item, facts.now)
    if not facts.certificates and facts.ahead is None:
        yield Unchecked("the clock against certificates", "no certificate is configured; give --certificate FILE")


def _adrift() -> Finding:
    return Finding(
        name="clock-adrift",
        level="note",
        where="clock",
        read="the kernel says that its clock is not synchronised (adjtimex: TIME_ERROR)",
        cost="clocks that drift apart end in certificates that are not valid yet, or not any more",
        mend="timedatectl set-ntp true, or run chrony",
    )


def _not_renewed(error: str) -> Finding:
    return Finding(
        name="renewal-fails",
        level="wrong",
        where="the running proxy",
        read=f"it is time to renew this host's certificate, and that failed: {error}",
        cost="the old one stays in use; when it ends, so do the links",
        mend="what is read says what is in the way; the proxy tries again by itself, every five minutes or sooner",
    )


def _compared(ahead: float) -> Line:
    if abs(ahead) < CLOCKS_DIFFER:
        return Passed("the clock agrees with the control server's")
    way = "ahead of" if ahead > 0 else "behind"
    return Finding(
        name="clocks-differ",
        level="wrong" if abs(ahead) > BACKDATED else "note",
        where="clock",
        read=f"this machine's clock is {_span(abs(ahead))} {way} the control server's",
        cost="certificates count as expired too early here, or as not valid yet: then nothing gets a link",
        mend="timedatectl set-ntp true on the machine whose clock is wrong",
    )


def _certificate(item: CertificateValidity, now: float) -> Line:
    if now < item.not_before:
        return Finding(
            name="clock-behind",
            level="wrong",
            where=item.file,
            read=f"by this machine's clock the certificate begins in {_span(item.not_before - now)}",
            cost="no peer of which this is the certificate gets a link, until the clock has caught up",
            mend="timedatectl set-ntp true here, or on the machine that issued it",
        )
    if now > item.not_after:
        return Finding(
            name="expired-certificate",
            level="wrong",
            where=item.file,
            read=f"by this machine's clock the certificate ended {_span(now - item.not_after)} ago",
            cost="every handshake with it fails",
            mend="find out why it was not renewed; if the clock is wrong: timedatectl set-ntp true",
        )
    if now > item.not_before + RENEWAL * (item.not_after - item.not_before):
        return Finding(
            name="late-renewal",
            level="note",
            where=item.file,
            read=f"the certificate is valid for another {_span(item.not_after - now)}; most of its life is over",
            cost="certificates are renewed at half of their life: this one was not, and when it ends so do the links",
            mend="find out why it was not renewed",
        )
    return Passed(f"{item.file} is valid, for another {_span(item.not_after - now)}")


def _span(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
